use mesos_proto::v1;
use v1::value::Type;

use crate::{Ranges, Resource, Resources, Scalar, Set, Value, resource_error};

/// Why a `--resources` or `--attributes` text is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads the simple form of `--resources`: `cpus:4;mem(role):1024;ports:[31000-32000];zones:{a,b}`.
///
/// What has no role gets `default_role`. (The JSON form is a list of `mesos.v1.Resource`.)
///
/// # Errors
///
/// With Mesos's text.
pub fn parse_resources(text: &str, default_role: &str) -> Result<Vec<v1::Resource>, ParseError> {
    let mut resources: Vec<v1::Resource> = Vec::new();
    for token in text.split(';').filter(|token| !token.trim().is_empty()) {
        let Some((name, value)) = token.split_once(':').filter(|(_, value)| !value.contains(':')) else {
            return Err(ParseError(format!("Bad value for resources, missing or extra ':' in {token}")));
        };
        let (name, role) = match (name.find('('), name.find(')')) {
            (None, _) => (name.trim(), default_role),
            (Some(open), Some(close)) if open < close => (name[..open].trim(), name[open + 1..close].trim()),
            _ => return Err(ParseError(format!("Bad value for resources, mismatched parentheses in {token}"))),
        };
        let value = match parse_value(value) {
            Ok(Parsed::Value(value)) => value,
            Ok(Parsed::Text(text)) => {
                return Err(ParseError(format!("Bad type for resource {name} value {text} type TEXT")));
            }
            Err(error) => return Err(ParseError(format!("Failed to parse resource {name} value {value} error {error}"))),
        };
        let mut resource = Resource::plain(name, value).to_proto(crate::Format::Refined);
        if role != "*" {
            resource.reservations.push(v1::resource::ReservationInfo {
                r#type: Some(v1::resource::reservation_info::Type::Static as i32),
                role: Some(role.to_owned()),
                ..Default::default()
            });
        }
        if let Some(error) = resource_error(&resource) {
            return Err(ParseError(error));
        }
        if resources.iter().any(|it| it.name == resource.name && it.r#type != resource.r#type) {
            return Err(ParseError(format!("Resources with the same name ('{name}') but different types are not allowed")));
        }
        resources.push(resource);
    }
    // Those of one kind are one resource.
    let sum: Resources = resources.iter().map(Resource::from_proto).collect();
    Ok(sum.to_proto(crate::Format::Refined))
}

/// Reads `--attributes`: `rack:r1;cores:3;range:[1-2]`.
///
/// # Errors
///
/// When an entry has no name or no value, or a value is malformed or a set.
pub fn parse_attributes(text: &str) -> Result<Vec<v1::Attribute>, ParseError> {
    let entries = text.split([';', '\n']).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let pair = entry.split_once(':').filter(|(name, value)| !name.is_empty() && !value.is_empty());
            let (name, value) = pair.ok_or_else(|| ParseError(format!("Invalid attribute key:value pair '{entry}'")))?;
            let mut attribute = v1::Attribute { name: name.to_owned(), ..Default::default() };
            match parse_value(value).map_err(|error| ParseError(format!("Failed to parse attribute {name} text {value} error {error}")))? {
                Parsed::Text(text) => {
                    attribute.r#type = Type::Text as i32;
                    attribute.text = Some(v1::value::Text { value: text });
                }
                Parsed::Value(Value::Scalar(amount)) => {
                    attribute.r#type = Type::Scalar as i32;
                    attribute.scalar = Some(v1::value::Scalar { value: amount.to_f64() });
                }
                Parsed::Value(Value::Ranges(ranges)) => {
                    attribute.r#type = Type::Ranges as i32;
                    let range = ranges.iter().map(|(begin, end)| v1::value::Range { begin, end }).collect();
                    attribute.ranges = Some(v1::value::Ranges { range });
                }
                Parsed::Value(Value::Set(_)) => {
                    return Err(ParseError(format!("Bad type for attribute {name} text {value} type SET")));
                }
            }
            Ok(attribute)
        })
        .collect()
}

/// An attribute's value as `--attributes` and the classic endpoints spell it.
pub fn print_attribute(attribute: &v1::Attribute) -> String {
    match Type::try_from(attribute.r#type) {
        Ok(Type::Scalar) => attribute.scalar.as_ref().map_or(Scalar::ZERO, |it| Scalar::from_f64(it.value)).to_string(),
        Ok(Type::Ranges) => {
            let ranges = attribute.ranges.iter().flat_map(|it| &it.range).map(|range| (range.begin, range.end));
            Ranges::new(ranges).to_string()
        }
        Ok(Type::Set) => Set::new(attribute.set.iter().flat_map(|it| &it.item).map(|it| it.as_str().into())).to_string(),
        _ => attribute.text.as_ref().map(|it| it.value.clone()).unwrap_or_default(),
    }
}

enum Parsed {
    Value(Value),
    Text(String),
}

fn parse_value(text: &str) -> Result<Parsed, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("Expecting non-empty string".into());
    }
    let inside = |open: char, close: char| text.strip_prefix(open).map(|rest| rest.strip_suffix(close));
    if let Some(inner) = inside('[', ']') {
        return parse_ranges(inner.ok_or("Mismatched brackets")?).map(|it| Parsed::Value(Value::Ranges(it)));
    }
    if let Some(inner) = inside('{', '}') {
        let inner = inner.ok_or("Mismatched brackets")?;
        let items = inner.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
        return Ok(Parsed::Value(Value::Set(Set::new(items.map(Into::into)))));
    }
    for bracket in ['[', '{'] {
        if text.contains(bracket) {
            return Err(format!("Unexpected '{bracket}' found"));
        }
    }
    if text.contains([']', '}']) {
        return Err("Mismatched brackets".into());
    }
    match text.parse::<f64>() {
        Ok(value) if !value.is_finite() => Err("Unsupported floating point value".into()),
        Ok(value) if value < 0.0 => Err("Negative values not supported".into()),
        Ok(value) => Ok(Parsed::Value(Value::Scalar(Scalar::from_f64(value)))),
        Err(_) => Ok(Parsed::Text(text.to_owned())),
    }
}

fn parse_ranges(inner: &str) -> Result<Ranges, String> {
    let mut ranges = Vec::new();
    for token in inner.split([',', '\n']).map(str::trim).filter(|token| !token.is_empty()) {
        let wrong = || format!("Expecting non-negative integers in '{token}'");
        let (begin, end) = token.split_once('-').ok_or("Expecting one or more \"ranges\"")?;
        let begin: u64 = begin.trim().parse().map_err(|_| wrong())?;
        let end: u64 = end.trim().parse().map_err(|_| wrong())?;
        if begin > end {
            return Err("Invalid ranges resource: begin > end".into());
        }
        ranges.push((begin, end));
    }
    if ranges.is_empty() { Err("Expecting one or more \"ranges\"".into()) } else { Ok(Ranges::new(ranges)) }
}
