//! How values of `server.properties` are read, and shown again.

use std::time::Duration;

use super::Config;

/// An integer in a range; `what` names its unit.
pub(super) fn number(value: &str, what: &str, low: i64, high: i64) -> Result<i64, String> {
    match value.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ if high == i64::MAX => Err(format!("'{value}' is not a number of {what} of at least {low}")),
        _ => Err(format!("'{value}' is not a number of {what} from {low} to {high}")),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{value}' is neither 'true' nor 'false'")),
    }
}

pub(super) fn bytes(value: &str, low: i64) -> Result<usize, String> {
    number(value, "bytes", low, i64::from(i32::MAX)).map(|bytes| bytes as usize)
}

pub(super) fn millis(value: &str, low: i64) -> Result<Duration, String> {
    number(value, "milliseconds", low, i64::MAX).map(|ms| Duration::from_millis(ms as u64))
}

/// `HOST:PORT`; an IPv6 host stands in brackets.
pub(super) fn host_port(value: &str) -> Result<(String, u16), String> {
    let wrong = || format!("'{value}' is not HOST:PORT");
    let (host, port) = value.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

/// Whether a host stands for all addresses of a machine.
pub(super) fn is_wildcard(host: &str) -> bool {
    host.is_empty() || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified())
}

/// Milliseconds of retention from a number of larger units; -1 is without limit.
pub(super) fn retention(config: &mut Config, value: &str, unit: &str, unit_ms: i64) -> Result<(), String> {
    let units = number(value, unit, -1, i64::from(i32::MAX))?;
    let ms = if units < 0 { -1 } else { units * unit_ms };
    config.topic_defaults.insert("log.retention.ms".to_owned(), ms.to_string());
    Ok(())
}

/// A number, as it stands in the file.
pub(super) fn shown(number: impl ToString) -> Option<String> {
    Some(number.to_string())
}

/// A duration in ms, as it stands in the file.
pub(super) fn shown_ms(duration: Duration) -> Option<String> {
    Some(duration.as_millis().to_string())
}
