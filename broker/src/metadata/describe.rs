//! Settings as people are shown them: every place that has a value, the one that holds first (K20).

use std::collections::BTreeMap;

use weir_protocol::metadata::settings::{Kind, Layers, Resolved, Setting, Source, TOPIC_SETTINGS};
use weir_protocol::metadata::{Image, placement};

use super::Resolver;
use crate::config::StaticSetting;

/// One setting.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) doc: &'static str,
    /// Whether it holds until the next start, whatever is asked for.
    pub(crate) read_only: bool,
    /// Where values stand, the one that holds first. Empty: there is none.
    pub(crate) places: Vec<Place>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Place {
    /// The setting's name there.
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// Where a setting is set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// At a topic with so many replicas.
    Topic { replicas: usize },
    /// At this broker.
    Broker,
    /// For all brokers.
    Cluster,
}

impl Described {
    /// The value that holds, if there is one.
    pub(crate) fn value(&self) -> Option<&str> {
        self.places.first().map(|place| place.value.as_str())
    }

    /// Where that stands.
    pub(crate) fn source(&self) -> Source {
        self.places.first().map_or(Source::Default, |place| place.source)
    }

    fn of_table(name: &'static str, setting: &Setting, places: Vec<Resolved<'_>>) -> Described {
        let places = places.into_iter().map(|found| Place {
            name: found.name,
            value: found.value.into_owned(),
            source: found.source,
        });
        Described { name, kind: setting.kind, doc: setting.doc, read_only: false, places: places.collect() }
    }

    fn of_file(setting: StaticSetting) -> Described {
        let StaticSetting { name, kind, doc, set, default } = setting;
        let set = set.map(|value| Place { name, value, source: Source::StaticBroker });
        let default = default.map(|value| Place { name, value, source: Source::Default });
        Described { name, kind, doc, read_only: true, places: set.into_iter().chain(default).collect() }
    }
}

/// What is shown; the rest is for tests.
fn shown() -> impl Iterator<Item = &'static Setting> {
    TOPIC_SETTINGS.iter().filter(|setting| !setting.name.starts_with("internal."))
}

impl Resolver {
    /// All settings of a topic with these of its own.
    pub(crate) fn describe_topic(
        &self,
        image: &Image,
        own: &BTreeMap<String, String>,
        replicas: usize,
    ) -> Vec<Described> {
        let layers = self.layers(image, own, replicas);
        shown().map(|setting| Described::of_table(setting.name, setting, layers.synonyms(setting))).collect()
    }

    /// All settings of this broker: those of its file, and what topics fall back to.
    pub(crate) fn describe_broker(&self, image: &Image) -> Vec<Described> {
        let own = BTreeMap::new();
        let replicas = self.default_replicas(image);
        let layers = self.layers(image, &own, replicas);
        let mut found: Vec<_> = self.config.static_settings().into_iter().map(Described::of_file).collect();
        for setting in &mut found {
            // Its default is not one number for every cluster.
            if setting.name == "default.replication.factor" && setting.places.is_empty() {
                let value = replicas.to_string();
                setting.places.push(Place { name: setting.name, value, source: Source::Default });
            }
        }
        found.extend(
            shown()
                .map(|setting| Described::of_table(setting.broker_name, setting, layers.synonyms(setting))),
        );
        found.sort_by_key(|setting| setting.name);
        found
    }

    /// The dynamic settings that hold for all brokers, as far as they are set.
    pub(crate) fn describe_cluster(&self, image: &Image) -> Vec<Described> {
        let own = BTreeMap::new();
        let layers = self.layers(image, &own, self.default_replicas(image));
        let mut found = Vec::new();
        for setting in shown() {
            let mut places = layers.synonyms(setting);
            places.retain(|place| place.source == Source::DynamicDefaultBroker);
            if !places.is_empty() {
                found.push(Described::of_table(setting.broker_name, setting, places));
            }
        }
        found.sort_by_key(|setting| setting.name);
        found
    }

    /// What a setting's value is where `level` itself has none.
    pub(crate) fn inherited(&self, image: &Image, setting: &'static Setting, level: Level) -> String {
        let none = BTreeMap::new();
        let layers = match level {
            Level::Topic { replicas } => self.layers(image, &none, replicas),
            Level::Broker => {
                Layers { broker: None, ..self.layers(image, &none, self.default_replicas(image)) }
            }
            Level::Cluster => Layers {
                broker: None,
                broker_defaults: &none,
                ..self.layers(image, &none, self.default_replicas(image))
            },
        };
        layers.resolve(setting).value.into_owned()
    }

    /// How many replicas a topic gets that does not ask for a number.
    fn default_replicas(&self, image: &Image) -> usize {
        match self.config.replication_factor {
            Some(factor) => usize::try_from(factor).unwrap_or(1),
            None => placement::default_replication_factor(image),
        }
    }
}
