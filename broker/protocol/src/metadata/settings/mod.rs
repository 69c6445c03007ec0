//! Settings of topics, with Kafka's names, types, defaults and rules.
//!
//! A value is looked for in the topic's own settings, the broker's dynamic ones, the dynamic ones of all brokers, the
//! broker's file, and at last in the defaults (KIP-226). Below the topic a setting goes by its broker's name.

mod table;
mod typed;

#[cfg(test)]
mod settings_tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use table::TOPIC_SETTINGS;
pub use typed::{Cleanup, Flush, TimestampType, TopicCompression, TopicSettings};

use super::placement::default_min_insync;

/// How long a value may be, in bytes.
pub const VALUE_BYTES_MAX: usize = 32_767;

/// A value's type, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Text.
    String,
    /// Texts with commas between them.
    List,
}

/// Which values are valid, besides having the right type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// All.
    Any,
    /// Numbers from here on.
    AtLeast(i64),
    /// Numbers from the first to the second.
    Between(f64, f64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// At least one of these.
    SomeOf(&'static [&'static str]),
}

/// What holds when a setting is set nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This.
    Value(&'static str),
    /// A majority of the topic's replicas (contract 3).
    Majority,
}

/// A setting that topics have.
#[derive(Debug)]
pub struct Setting {
    /// Its name on a topic.
    pub name: &'static str,
    /// Its name on a broker.
    pub broker_name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default.
    pub default: Fallback,
    /// Its valid values.
    pub rule: Rule,
    /// What it is for.
    pub doc: &'static str,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum InvalidSetting {
    /// There is no such setting.
    #[error("unknown setting {name:?}")]
    Unknown {
        /// As asked for.
        name: String,
    },
    /// The value does not fit.
    #[error("invalid value {value:?} for {name}: {rule}")]
    Value {
        /// The setting.
        name: String,
        /// As asked for, shortened.
        value: String,
        /// What a value must be.
        rule: String,
    },
}

/// Where a value comes from, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic's own setting.
    Topic,
    /// The broker's dynamic setting.
    DynamicBroker,
    /// The dynamic setting of all brokers.
    DynamicDefaultBroker,
    /// The broker's file.
    StaticBroker,
    /// Nowhere: the default.
    Default,
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// Under which name it stands there: the topic's or the broker's.
    pub name: &'static str,
    /// The value, as text.
    pub value: Cow<'a, str>,
    /// Where it stands.
    pub source: Source,
}

type Values = BTreeMap<String, String>;

/// Where values are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// The topic's own settings.
    pub topic: &'a Values,
    /// The broker's dynamic settings.
    pub broker: Option<&'a Values>,
    /// The dynamic settings of all brokers.
    pub broker_defaults: &'a Values,
    /// The broker's file.
    pub file: Option<&'a Values>,
    /// How many replicas the topic has.
    pub replicas: usize,
}

/// Finds a setting by its name on a topic.
pub fn topic_setting(name: &str) -> Option<&'static Setting> {
    TOPIC_SETTINGS.binary_search_by_key(&name, |setting| setting.name).ok().map(|at| &TOPIC_SETTINGS[at])
}

/// Finds a topic's setting by its name on a broker.
pub fn broker_setting(broker_name: &str) -> Option<&'static Setting> {
    TOPIC_SETTINGS.iter().find(|setting| setting.broker_name == broker_name)
}

/// Checks a topic's setting.
pub fn check_topic(name: &str, value: &str) -> Result<(), InvalidSetting> {
    topic_setting(name).ok_or_else(|| InvalidSetting::Unknown { name: shortened(name) })?.check(name, value)
}

/// Checks a broker's setting that topics fall back to.
pub fn check_broker(name: &str, value: &str) -> Result<(), InvalidSetting> {
    broker_setting(name).ok_or_else(|| InvalidSetting::Unknown { name: shortened(name) })?.check(name, value)
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

impl Setting {
    /// Whether `value` may be set; `name` goes into the error.
    fn check(&self, name: &str, value: &str) -> Result<(), InvalidSetting> {
        if self.takes(value) {
            return Ok(());
        }
        Err(InvalidSetting::Value { name: name.to_owned(), value: shortened(value), rule: self.rule_text() })
    }

    fn takes(&self, value: &str) -> bool {
        if value.len() > VALUE_BYTES_MAX {
            return false;
        }
        let value = value.trim();
        let within = |number: f64| match self.rule {
            Rule::Between(low, high) => low <= number && number <= high,
            _ => true,
        };
        let at_least = |number: i64| match self.rule {
            Rule::AtLeast(low) => low <= number,
            _ => within(number as f64),
        };
        match self.kind {
            Kind::Boolean => parse_bool(value).is_some(),
            Kind::Int => value.parse::<i32>().is_ok_and(|number| at_least(number.into())),
            Kind::Long => value.parse::<i64>().is_ok_and(at_least),
            Kind::Double => value.parse::<f64>().is_ok_and(|number| number.is_finite() && within(number)),
            Kind::String => match self.rule {
                Rule::OneOf(allowed) => allowed.contains(&value),
                _ => true,
            },
            Kind::List => match self.rule {
                Rule::SomeOf(allowed) => value.split(',').all(|item| allowed.contains(&item.trim())),
                _ => true,
            },
        }
    }

    fn rule_text(&self) -> String {
        match self.rule {
            Rule::Any => format!("must be of type {:?}", self.kind),
            Rule::AtLeast(low) => format!("must be of type {:?} and at least {low}", self.kind),
            Rule::Between(low, high) => format!("must be a number from {low} to {high}"),
            Rule::OneOf(allowed) => format!("must be one of {}", allowed.join(", ")),
            Rule::SomeOf(allowed) => format!("must be a list of {}", allowed.join(", ")),
        }
    }
}

pub(super) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        _ if value.eq_ignore_ascii_case("true") => Some(true),
        _ if value.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

impl<'a> Layers<'a> {
    /// Layers without a broker's own: what holds on a broker without a file and without dynamic settings.
    pub fn of_topic(topic: &'a Values, broker_defaults: &'a Values, replicas: usize) -> Layers<'a> {
        Layers { topic, broker: None, broker_defaults, file: None, replicas }
    }

    /// Every place where the setting has a value, the one that holds first; never empty (K20: the synonyms).
    pub fn synonyms(&self, setting: &'static Setting) -> Vec<Resolved<'a>> {
        let layers = [
            (Some(self.topic), setting.name, Source::Topic),
            (self.broker, setting.broker_name, Source::DynamicBroker),
            (Some(self.broker_defaults), setting.broker_name, Source::DynamicDefaultBroker),
            (self.file, setting.broker_name, Source::StaticBroker),
        ];
        let mut found: Vec<_> = layers
            .into_iter()
            .filter_map(|(values, name, source)| {
                // Values are checked where they are set; one that does not fit all the same counts as not set.
                let value = values?.get(name).filter(|value| setting.takes(value))?;
                Some(Resolved { name, value: Cow::Borrowed(value.trim()), source })
            })
            .collect();
        let value = match setting.default {
            Fallback::Value(value) => Cow::Borrowed(value),
            Fallback::Majority => Cow::Owned(default_min_insync(self.replicas).to_string()),
        };
        found.push(Resolved { name: setting.broker_name, value, source: Source::Default });
        found
    }

    /// The value that holds.
    pub fn resolve(&self, setting: &'static Setting) -> Resolved<'a> {
        self.synonyms(setting).swap_remove(0)
    }
}
