//! Where the instances of one app may be, given where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use fancy_regex::Expr;

use crate::instance::AgentInfo;
use crate::matching::wanted_volumes;
use crate::mesos::Attribute;
use crate::model::spec::Spec;
use crate::model::{Constraint, Operator};

/// The constraints of one app, with where its instances are.
#[derive(Debug)]
pub(crate) struct Placement {
    rules: Vec<Rule>,
    /// Patterns of the volumes' own constraints; none: it is no pattern.
    of_volumes: BTreeMap<String, Option<Arc<Pattern>>>,
}

#[derive(Debug)]
struct Rule {
    constraint: Constraint,
    pattern: Option<Arc<Pattern>>,
    /// Instances per value of the field.
    counts: BTreeMap<String, u32>,
}

/// A place: an agent as constraints see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    pub(crate) region: Option<&'a str>,
    pub(crate) zone: Option<&'a str>,
    pub(crate) attributes: &'a [(String, Attribute)],
}

impl<'a> From<&'a AgentInfo> for Place<'a> {
    fn from(agent: &'a AgentInfo) -> Self {
        Place { host: &agent.host, region: agent.region.as_deref(), zone: agent.zone.as_deref(), attributes: &agent.attributes }
    }
}

impl Place<'_> {
    pub(crate) fn value(&self, field: &str) -> Option<String> {
        match field {
            "hostname" | "@hostname" => Some(self.host.to_owned()),
            "@region" => self.region.map(str::to_owned),
            "@zone" => self.zone.map(str::to_owned),
            name => self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.text()),
        }
    }
}

/// A regular expression of a constraint, in Java's words.
#[derive(Debug)]
pub(crate) struct Pattern(Engine);

#[derive(Debug)]
enum Engine {
    /// An automaton: as fast on every text.
    Plain(regex::Regex),
    /// What looks around or back: it goes back and forth, on some texts for ever.
    Fancy {
        regex: Box<fancy_regex::Regex>,
        /// Texts on which that took too long. Offers name the same ones again and again.
        endless: Mutex<BTreeSet<Box<str>>>,
    },
}

/// Why a text is no pattern of a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is no regular expression.
    Malformed,
    /// Compiled it would take more memory than all of them together may.
    TooLarge,
}

impl Pattern {
    /// Steps back that one look may take: values are names of hosts and racks, and what takes longer than this goes on forever.
    const STEPS_MAX: usize = 100_000;
    /// Bytes that a compiled pattern may take.
    const SIZE_MAX: usize = 1 << 20;
    /// Bytes of a pattern: hundreds of names, one beside the other.
    const LENGTH_MAX: usize = 32 << 10;
    /// Bytes of one that looks around or back. Each piece between two such places is compiled by itself, and by its engine's limits for each.
    const FANCY_LENGTH_MAX: usize = 1 << 10;
    /// Bytes of a value that one looks at that looks around or back: each of its steps may read all of it.
    const FANCY_VALUE_MAX: usize = 1 << 10;
    /// After so many texts that took too long the pattern is not tried on others: the next ones would, too.
    const ENDLESS_MAX: usize = 32;

    /// A pattern that must match the whole text. What needs neither looking around nor back is compiled to an automaton, and as fast as one.
    ///
    /// # Errors
    /// When it is no regular expression, or too large a one.
    pub(crate) fn whole(pattern: &str) -> Result<Pattern, Unfit> {
        if pattern.len() > Pattern::LENGTH_MAX {
            return Err(Unfit::TooLarge);
        }
        let text = format!("^(?:{})$", unquoted(pattern));
        if !is_possessive(&text) {
            let mut builder = regex::RegexBuilder::new(&text);
            match builder.size_limit(Pattern::SIZE_MAX).dfa_size_limit(Pattern::SIZE_MAX).nest_limit(100).build() {
                Ok(regex) => return Ok(Pattern(Engine::Plain(regex))),
                Err(regex::Error::CompiledTooBig(_)) => return Err(Unfit::TooLarge),
                // Perhaps it is one of the others.
                Err(_) => {}
            }
        }
        if text.len() > Pattern::FANCY_LENGTH_MAX {
            return Err(Unfit::TooLarge);
        }
        let tree = Expr::parse_tree(&text).map_err(|_| Unfit::Malformed)?;
        if Weight::of(&tree.expr).bytes > Weight::MAX {
            return Err(Unfit::TooLarge);
        }
        let built = fancy_regex::RegexBuilder::new(&text)
            .backtrack_limit(Pattern::STEPS_MAX)
            .delegate_size_limit(Pattern::SIZE_MAX)
            .delegate_dfa_size_limit(Pattern::SIZE_MAX)
            .build();
        let regex = Box::new(built.map_err(|_| Unfit::Malformed)?);
        Ok(Pattern(Engine::Fancy { regex, endless: Mutex::default() }))
    }

    /// Whether it matches; `None`: that takes too long to tell.
    pub(crate) fn matches(&self, text: &str) -> Option<bool> {
        match &self.0 {
            Engine::Plain(regex) => Some(regex.is_match(text)),
            Engine::Fancy { regex, endless } => {
                let mut endless = endless.lock().unwrap_or_else(PoisonError::into_inner);
                if text.len() > Pattern::FANCY_VALUE_MAX || endless.len() >= Pattern::ENDLESS_MAX || endless.contains(text) {
                    return None;
                }
                let found = regex.is_match(text).ok();
                if found.is_none() {
                    endless.insert(text.into());
                }
                found
            }
        }
    }
}

/// Whether it may have a quantifier that gives nothing back. `regex` would read `a*+` as `(?:a*)+`, which is something else.
fn is_possessive(pattern: &str) -> bool {
    ["*+", "++", "?+", "}+"].iter().any(|it| pattern.contains(it))
}

/// About how much a pattern takes that looks around or back. The limits of its engine are of each piece, and not kept to where there are several.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    bytes: usize,
    /// It is carried out step by step, not compiled with what is around it.
    is_hard: bool,
}

impl Weight {
    /// What is above is refused.
    const MAX: usize = 2 << 20;
    /// Of a piece that is compiled by itself, beside its content.
    const PIECE: usize = 16 << 10;
    const CHARACTER: usize = 64;
    const CLASS: usize = 512;
    /// Of the letters of all scripts.
    const UNICODE_CLASS: usize = 20 << 10;

    fn of(expr: &Expr) -> Weight {
        match expr {
            Expr::Literal { val, casei } => Weight::easy(Weight::CHARACTER * val.len() * if *casei { 4 } else { 1 }),
            Expr::Any { .. } => Weight::easy(Weight::CLASS),
            Expr::Delegate { inner, .. } => {
                let is_unicode =
                    !inner.is_ascii() || ["\\w", "\\W", "\\d", "\\D", "\\s", "\\S", "\\p", "\\P"].iter().any(|it| inner.contains(it));
                Weight::easy(inner.len() * Weight::CHARACTER + if is_unicode { Weight::UNICODE_CLASS } else { Weight::CLASS })
            }
            Expr::Concat(all) | Expr::Alt(all) => all.iter().map(Weight::of).fold(Weight::default(), Weight::and),
            Expr::Group(inner) => Weight::of(inner),
            Expr::LookAround(inner, _) | Expr::AtomicGroup(inner) => Weight::of(inner).and(Weight::hard()),
            Expr::Repeat { child, lo, hi, .. } => {
                let one = Weight::of(child);
                // What is hard is written down once and counted.
                let times = if one.is_hard { 1 } else { if *hi == usize::MAX { *lo } else { *hi }.max(1) };
                Weight { bytes: one.bytes.saturating_mul(times), ..one }
            }
            Expr::Conditional { condition, true_branch, false_branch } => {
                [condition, true_branch, false_branch].into_iter().map(|it| Weight::of(it)).fold(Weight::hard(), Weight::and)
            }
            _ => Weight::hard(),
        }
    }

    fn easy(bytes: usize) -> Weight {
        Weight { bytes, is_hard: false }
    }

    fn hard() -> Weight {
        Weight { bytes: Weight::PIECE, is_hard: true }
    }

    fn and(self, other: Weight) -> Weight {
        Weight { bytes: self.bytes.saturating_add(other.bytes), is_hard: self.is_hard || other.is_hard }
    }
}

/// `\Q…\E` spelled with an escape before each character that needs one.
fn unquoted(pattern: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(pattern.len()), pattern);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escaped = &rest[at + 1..];
        if let Some(quoted) = escaped.strip_prefix('Q') {
            let (literal, behind) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&fancy_regex::escape(literal));
            rest = behind;
        } else {
            // With what it escapes: of `\\Q` the second one begins nothing.
            let length = escaped.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[at..=at + length]);
            rest = &escaped[length..];
        }
    }
    out.push_str(rest);
    out
}

/// Patterns that were compiled before: that takes far longer than to see whether something fits, and thousands of apps that wait mostly share a
/// few.
#[derive(Debug, Default)]
pub(crate) struct Patterns(BTreeMap<String, Option<Arc<Pattern>>>);

impl Patterns {
    /// More are not kept.
    const CAPACITY: usize = 1_000;

    fn get(&mut self, pattern: &str) -> Option<Arc<Pattern>> {
        if let Some(compiled) = self.0.get(pattern) {
            return compiled.clone();
        }
        if self.0.len() >= Self::CAPACITY {
            self.0.clear();
        }
        let compiled = Pattern::whole(pattern).ok().map(Arc::new);
        self.0.insert(pattern.to_owned(), compiled.clone());
        compiled
    }
}

impl Placement {
    pub(crate) fn new(constraints: &[Constraint], patterns: &mut Patterns) -> Placement {
        let rules = constraints
            .iter()
            .map(|constraint| {
                let pattern = match constraint.operator {
                    Operator::Like | Operator::Unlike => constraint.value.as_deref().and_then(|it| patterns.get(it)),
                    _ => None,
                };
                Rule { constraint: constraint.clone(), pattern, counts: BTreeMap::new() }
            })
            .collect();
        Placement { rules, of_volumes: BTreeMap::new() }
    }

    /// The constraints of an app or pod, with those of its volumes.
    pub(crate) fn of(spec: &Spec, patterns: &mut Patterns) -> Placement {
        let mut placement = Placement::new(spec.constraints(), patterns);
        for (_, volume) in wanted_volumes(spec) {
            for value in volume.constraints.iter().filter_map(|it| it.value.as_deref()) {
                placement.of_volumes.insert(value.to_owned(), patterns.get(value));
            }
        }
        placement
    }

    /// The pattern of a volume's constraint.
    pub(crate) fn of_volume(&self, value: &str) -> Option<&Arc<Pattern>> {
        self.of_volumes.get(value)?.as_ref()
    }

    /// Whether any rule looks at where the other instances are.
    pub(crate) fn looks_at_others(&self) -> bool {
        self.rules.iter().any(|rule| !matches!(rule.constraint.operator, Operator::Like | Operator::Unlike | Operator::Is))
    }

    /// Counts an instance at `place`.
    pub(crate) fn add(&mut self, place: Place<'_>) {
        for rule in &mut self.rules {
            if let Some(value) = place.value(&rule.constraint.field) {
                *rule.counts.entry(value).or_insert(0) += 1;
            }
        }
    }

    /// Whether another instance may be at `place`.
    pub(crate) fn accepts(&self, place: Place<'_>) -> bool {
        self.rules.iter().all(|rule| rule.accepts(place.value(&rule.constraint.field).as_deref()))
    }

    /// Whether any rule is about the region.
    pub(crate) fn names_region(&self) -> bool {
        self.rules.iter().any(|rule| rule.constraint.field == "@region")
    }
}

impl Rule {
    fn accepts(&self, value: Option<&str>) -> bool {
        let wanted = self.constraint.value.as_deref().filter(|it| !it.is_empty());
        let Some(value) = value else { return self.constraint.operator == Operator::Unlike };
        let count = self.counts.get(value).copied().unwrap_or(0);
        match self.constraint.operator {
            Operator::Unique => count == 0,
            Operator::Cluster => match wanted {
                Some(wanted) => value == wanted,
                None => count > 0 || self.counts.is_empty(),
            },
            Operator::Like => self.pattern.as_ref().is_some_and(|it| it.matches(value) == Some(true)),
            Operator::Unlike => self.pattern.as_ref().is_some_and(|it| it.matches(value) == Some(false)),
            Operator::MaxPer => wanted.and_then(|it| it.parse::<u32>().ok()).is_some_and(|most| count < most),
            Operator::Is => {
                let wanted = self.constraint.value.as_deref().unwrap_or_default();
                match (wanted.parse::<f64>(), value.parse::<f64>()) {
                    (Ok(one), Ok(two)) => (one - two).abs() < 0.000_5,
                    _ => wanted == value,
                }
            }
            // Marathon up to 1.9: a new value always; a used one when enough are in use and it is among the least used.
            Operator::GroupBy => {
                let least_values = wanted.and_then(|it| it.parse::<usize>().ok()).unwrap_or(0);
                count == 0 || (self.counts.len() >= least_values && Some(count) == self.counts.values().min().copied())
            }
        }
    }
}

/// Which of `places` should lose an instance so that every GROUP_BY stays even: the positions of those on a most used value. All of them when
/// there is no such rule.
pub(crate) fn most_crowded(constraints: &[Constraint], places: &[Option<Place<'_>>]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..places.len()).collect();
    for constraint in constraints.iter().filter(|it| it.operator == Operator::GroupBy) {
        let value = |at: usize| places[at].as_ref().and_then(|place| place.value(&constraint.field));
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for at in 0..places.len() {
            if let Some(value) = value(at) {
                *counts.entry(value).or_insert(0) += 1;
            }
        }
        let Some(most) = counts.values().max().copied() else { continue };
        let crowded: Vec<usize> =
            left.iter().copied().filter(|at| value(*at).is_none_or(|value| counts.get(&value) == Some(&most))).collect();
        if !crowded.is_empty() {
            left = crowded;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(field: &str, operator: Operator, value: Option<&str>) -> Constraint {
        Constraint { field: field.to_owned(), operator, value: value.map(str::to_owned) }
    }

    /// Places instances one after the other on hosts offered in turn, and tells where they went.
    fn placed(constraint: Constraint, hosts: &[&str], offers: &[usize]) -> String {
        let attributes: Vec<Vec<(String, Attribute)>> = hosts
            .iter()
            .map(|host| match host.split_once(':') {
                Some((_, rack)) => vec![("rack".to_owned(), Attribute::Text(rack.to_owned()))],
                None => Vec::new(),
            })
            .collect();
        let mut placement = Placement::new(&[constraint], &mut Patterns::default());
        let mut taken = Vec::new();
        for &at in offers {
            let host = hosts[at].split(':').next().unwrap();
            let place = Place { host, region: None, zone: None, attributes: &attributes[at] };
            if placement.accepts(place) {
                placement.add(place);
                taken.push(hosts[at]);
            }
        }
        taken.join(" ")
    }

    #[test]
    fn each_operator_places_as_marathon_did() {
        let hosts = ["a:r1", "b:r1", "c:r2", "d"];
        let round = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3];
        for (constraint, expected) in [
            (constraint("hostname", Operator::Unique, None), "a:r1 b:r1 c:r2 d"),
            (constraint("rack", Operator::Unique, None), "a:r1 c:r2"),
            (constraint("rack", Operator::Cluster, Some("r2")), "c:r2 c:r2 c:r2"),
            (constraint("rack", Operator::Cluster, None), "a:r1 b:r1 a:r1 b:r1 a:r1 b:r1"),
            (constraint("rack", Operator::GroupBy, None), "a:r1 b:r1 c:r2 c:r2 a:r1 c:r2"),
            (constraint("rack", Operator::GroupBy, Some("2")), "a:r1 c:r2 a:r1 c:r2 a:r1 c:r2"),
            (constraint("rack", Operator::GroupBy, Some("3")), "a:r1 c:r2"),
            (constraint("rack", Operator::MaxPer, Some("2")), "a:r1 b:r1 c:r2 c:r2"),
            (constraint("rack", Operator::Like, Some("r[1-1]")), "a:r1 b:r1 a:r1 b:r1 a:r1 b:r1"),
            (constraint("rack", Operator::Like, Some("r")), ""),
            (constraint("rack", Operator::Unlike, Some("r1")), "c:r2 d c:r2 d c:r2 d"),
            (constraint("rack", Operator::Is, Some("r2")), "c:r2 c:r2 c:r2"),
        ] {
            assert_eq!(placed(constraint.clone(), &hosts, &round), expected, "{constraint:?}");
        }
    }

    #[test]
    fn patterns_are_those_of_java() {
        for (pattern, fits, fits_not) in [
            ("(?!old-).*", "new-1", "old-1"),
            (r"(\w+)-\1", "a1-a1", "a1-a2"),
            (r"\Qh.1\E[0-9]", "h.12", "hx12"),
            (r"\Q[a", "[a", "a"),
            (r"\\Q", r"\Q", "Q"),
            ("a*+b", "aab", "aaa"),
            ("a|b", "b", "ab"),
            ("(?<=r)ack|rack(?<!x)", "rack", "ack"),
        ] {
            let whole = Pattern::whole(pattern).unwrap();
            assert_eq!((whole.matches(fits), whole.matches(fits_not)), (Some(true), Some(false)), "{pattern}");
        }
        assert_eq!(Pattern::whole("a*+a").unwrap().matches("aa"), Some(false), "what is taken possessively is not given back");
        assert_eq!(Pattern::whole("(").unwrap_err(), Unfit::Malformed);
        let hosts: Vec<String> = (0..300).map(|it| format!("host-{it}\\.example\\.com")).collect();
        assert_eq!(Pattern::whole(&hosts.join("|")).unwrap().matches("host-299.example.com"), Some(true), "a long list of names");
        assert_eq!(Pattern::whole(r"(?!old-)\w{1,40}(?:\.[a-z0-9-]{1,63}){0,5}").unwrap().matches("new_1.example.com"), Some(true));
    }

    #[test]
    fn patterns_that_would_take_gigabytes_are_refused_at_once() {
        for pattern in [
            "(?=a)".repeat(4_000),
            "(?=a)".repeat(200),
            r"(?=\w{99})".repeat(90),
            r"((?:(?:\w{100}){100}){100})\1".to_owned(),
            r"(?:(?:\w{100}){100}){100}".to_owned(),
            "x".repeat(100_000),
            format!("{}++", "a|".repeat(3_000)),
        ] {
            assert_eq!(Pattern::whole(&pattern).unwrap_err(), Unfit::TooLarge, "{pattern:.60}");
        }
    }

    #[test]
    fn a_pattern_that_never_ends_places_nothing() {
        let endless = r"(?:(a|aa)+)\1$";
        let text = format!("{}b", "a".repeat(60));
        assert_eq!(Pattern::whole(endless).unwrap().matches(&text), None);
        for operator in [Operator::Like, Operator::Unlike] {
            let place = Place { host: &text, region: None, zone: None, attributes: &[] };
            assert!(!Placement::new(&[constraint("hostname", operator, Some(endless))], &mut Patterns::default()).accepts(place));
        }
    }

    #[test]
    fn what_took_too_long_is_not_tried_again_and_again() {
        let pattern = Pattern::whole(r"(?:(a|aa)+)\1$").unwrap();
        let Engine::Fancy { endless, .. } = &pattern.0 else { panic!("it looks back") };
        let text = |it: usize| format!("{}b", "a".repeat(60 + it));
        for _ in 0..1_000 {
            assert_eq!(pattern.matches(&text(0)), None);
        }
        assert_eq!(endless.lock().unwrap().len(), 1);
        assert_eq!(pattern.matches("aa"), Some(true));
        for it in 0..Pattern::ENDLESS_MAX * 2 {
            assert_eq!(pattern.matches(&text(it)), None);
        }
        assert_eq!(endless.lock().unwrap().len(), Pattern::ENDLESS_MAX);
        assert_eq!(pattern.matches("aa"), None, "it is given up");
    }

    #[test]
    fn numbers_are_equal_as_numbers() {
        let attributes = [("gen".to_owned(), Attribute::Scalar(2_500))];
        let place = Place { host: "a", region: None, zone: None, attributes: &attributes };
        assert!(Placement::new(&[constraint("gen", Operator::Is, Some("2.50"))], &mut Patterns::default()).accepts(place));
        assert_eq!(place.value("gen").as_deref(), Some("2.5"));
    }

    #[test]
    fn the_crowded_value_gives_first() {
        let rack = |name: &str| vec![("rack".to_owned(), Attribute::Text(name.to_owned()))];
        let attributes = [rack("r1"), rack("r2"), rack("r1")];
        let places: Vec<_> = attributes.iter().map(|attributes| Some(Place { host: "h", region: None, zone: None, attributes })).collect();
        assert_eq!(most_crowded(&[constraint("rack", Operator::GroupBy, None)], &places), [0, 2]);
        assert_eq!(most_crowded(&[], &places), [0, 1, 2]);
    }
}
