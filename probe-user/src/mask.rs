//! Secrets in what is told of processes and containers: environment variables, labels and command lines. Pure.
//!
//! A secret is known by its name, never by its look: a variable `DB_PASSWORD`, an option `--token`, a header `Authorization:`, the password
//! between a user's name and the host of an address. A name that ends in "file", "path" or "dir" says where a secret is, and is told.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Most patterns that may be configured, and the largest compiled size of one, in bytes.
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Parts of a name that make its value a secret, wherever it stands.
const WORDS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "accountkey",
    "privatekey",
    "authorization",
    "bearer",
];

/// Whole words of a name that do.
const WHOLE_WORDS: [&str; 4] = ["pass", "pwd", "pw", "auth"];

/// Parts that do in the name of a variable, where a wrong guess costs less than in an option or a label, which people look for.
const VARIABLE_WORDS: [&str; 6] = ["pass", "key", "auth", "private", "dsn", "cert"];

/// Variables that say where a shell works, in spite of their names.
const WORKING_DIRECTORIES: [&str; 2] = ["PWD", "OLDPWD"];

/// Last words of names that say where a secret is.
const PLACES: [&str; 5] = ["file", "path", "dir", "directory", "url"];

/// Programs whose `-p` has a password, attached or in the next argument.
const ATTACHED: [&str; 9] =
    ["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlshow", "mysqlcheck", "mariadb", "mariadb-dump", "mariadb-admin"];

/// Programs with short options whose next argument, or rest, is a secret.
const SHORT: [(&str, &str); 7] = [
    ("sshpass", "-p"),
    ("redis-cli", "-a"),
    ("mongo", "-p"),
    ("mongosh", "-p"),
    ("mongodump", "-p"),
    ("ldapsearch", "-w"),
    ("ldapmodify", "-w"),
];

/// Programs with options whose next argument, or rest, is a user and a password.
const USERS: [(&str, &str); 6] =
    [("curl", "-u"), ("curl", "--user"), ("curl", "--proxy-user"), ("curl", "-U"), ("smbclient", "-U"), ("smbclient", "--user")];

/// Short options of curl without a value: others may follow in the same argument.
const CURL_SWITCHES: &str = "012346#:aBfgGiIjJklLMnNOpqRsSvVZ";

/// Which names hide their values.
#[derive(Clone, Debug)]
pub struct Masks {
    /// Whether the well-known words do.
    well_known: bool,
    patterns: Vec<Regex>,
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        self.well_known == other.well_known && self.patterns.iter().map(Regex::as_str).eq(other.patterns.iter().map(Regex::as_str))
    }
}

impl Default for Masks {
    /// The well-known words alone.
    fn default() -> Self {
        Masks { well_known: true, patterns: Vec::new() }
    }
}

impl Masks {
    /// Masks of the well-known words and of names that match one of `patterns`, whatever their case. The pattern `none` takes the well-known
    /// words away.
    ///
    /// # Errors
    /// A pattern that is no regular expression, or too large, and what is wrong with it.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut masks = Masks::default();
        for pattern in patterns.into_iter().filter(|it| !it.is_empty()) {
            if pattern == "none" {
                masks.well_known = false;
                continue;
            }
            if masks.patterns.len() >= PATTERNS_MAX {
                return Err(format!("more than {PATTERNS_MAX} patterns"));
            }
            let compiled = RegexBuilder::new(pattern).case_insensitive(true).size_limit(PATTERN_BYTES_MAX).build();
            masks
                .patterns
                .push(compiled.map_err(|error| format!("{pattern:?}: {}", error.to_string().lines().last().unwrap_or_default()))?);
        }
        Ok(masks)
    }

    /// A variable's value as it may be told.
    pub fn variable<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.hides_variable(name) { Cow::Borrowed(MASK) } else { self.text(value) }
    }

    /// A label's value as it may be told.
    pub fn label<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.hides_option(name) { Cow::Borrowed(MASK) } else { self.text(value) }
    }

    /// A command line as it may be told, arguments joined by blanks.
    pub fn command_line<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for (position, told) in self.arguments(arguments).enumerate() {
            if position > 0 {
                line.push(' ');
            }
            line.push_str(&told);
        }
        line
    }

    /// The arguments of a command line as they may be told; the first is the program.
    pub fn arguments<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Cow<'a, str>> {
        let mut program = "";
        let mut hidden = Next::Shown;
        arguments.into_iter().enumerate().map(move |(position, argument)| {
            if position == 0 {
                program = program_of(argument);
            }
            match std::mem::take(&mut hidden) {
                // An option without its value, such as `mysql --password --host db`.
                Next::Secret if !argument.starts_with('-') && !argument.is_empty() => Cow::Borrowed(MASK),
                Next::User if !argument.starts_with('-') => user_masked(argument),
                _ => {
                    let (told, next) = self.argument(program, argument);
                    hidden = next;
                    told
                }
            }
        })
    }

    /// A text in which secrets may stand behind their names: `password=x`, `token: x`, or in an address, `redis://:x@host`.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // Most texts have neither.
        if !text.contains(['=', ':']) || (!self.well_known && self.patterns.is_empty()) {
            return Cow::Borrowed(text);
        }
        let mut out = String::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) = text[at..].find(['=', ':']).map(|it| at + it) {
            at = found + 1;
            let secret = if self.well_known && text[found..].starts_with("://") {
                password_of_address(text, found + 3)
            } else {
                self.secret_after(text, copied, found)
            };
            let Some((begin, end)) = secret.filter(|(begin, end)| begin < end) else { continue };
            out.push_str(&text[copied..begin]);
            out.push_str(MASK);
            copied = end;
            at = end;
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    fn argument<'a>(&self, program: &str, argument: &'a str) -> (Cow<'a, str>, Next) {
        if self.well_known {
            let of = |table: &[(&str, &'static str)]| {
                table.iter().filter(|(it, _)| *it == program).map(|(_, option)| *option).collect::<Vec<_>>()
            };
            if ATTACHED.contains(&program) && argument.len() > 2 && argument.starts_with("-p") {
                return (Cow::Owned(format!("-p{MASK}")), Next::Shown);
            }
            for option in of(&SHORT) {
                match argument.strip_prefix(option) {
                    Some("") => return (Cow::Borrowed(argument), Next::Secret),
                    Some(_) => return (Cow::Owned(format!("{option}{MASK}")), Next::Shown),
                    None => {}
                }
            }
            for option in of(&USERS) {
                match user_of(program, option, argument) {
                    Some("") => return (Cow::Borrowed(argument), Next::User),
                    Some(user) => {
                        let option = &argument[..argument.len() - user.len()];
                        return (Cow::Owned(format!("{option}{}", user_masked(user))), Next::Shown);
                    }
                    None => {}
                }
            }
        }
        let option = argument.trim_start_matches('-');
        let is_option = option.len() < argument.len();
        match option.split_once('=') {
            // The whole of it is one value, unless it is a script.
            Some((name, value)) if is_name(name) && self.hides_option(name) && !value.is_empty() => {
                let shown = argument.len() - value.len();
                (Cow::Owned(format!("{}{MASK}", &argument[..shown])), Next::Shown)
            }
            None if is_option && is_name(option) && self.hides_option(option) => (Cow::Borrowed(argument), Next::Secret),
            _ => (self.text(argument), Next::Shown),
        }
    }

    /// Where the secret is that a name before the `=` or `:` at `separator` announces. `from`: what is before it is done.
    fn secret_after(&self, text: &str, from: usize, separator: usize) -> Option<(usize, usize)> {
        let before = text[from..separator].trim_end_matches(['"', '\'', ' ']);
        let name_begin =
            before.rfind(|it: char| !is_name_character(it)).map_or(0, |it| it + before[it..].chars().next().map_or(1, char::len_utf8));
        let name = before[name_begin..].trim_start_matches('-');
        if name.is_empty() || !self.hides_option(name) {
            return None;
        }
        let rest = &text[separator + 1..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let is_header = text.as_bytes().get(separator) == Some(&b':');
        // A name and a colon alone are common in paths and images; a secret follows after a blank or a quote.
        let mut begin = separator + 1 + blank;
        if text[begin..].starts_with("Bearer ") || text[begin..].starts_with("Basic ") {
            begin += text[begin..].find(' ').map_or(0, |it| it + 1);
        }
        let quote = text[begin..].chars().next().filter(|it| matches!(it, '"' | '\''));
        if is_header && blank == 0 && quote.is_none() {
            return None;
        }
        if !is_header && blank > 0 {
            return None;
        }
        if let Some(quote) = quote {
            begin += 1;
            let end = text[begin..].find(quote).map_or(text.len(), |it| begin + it);
            return Some((begin, end));
        }
        let ends = |it: char| it.is_whitespace() || matches!(it, '&' | ';' | ',' | '"' | '\'' | ')' | '|');
        Some((begin, text[begin..].find(ends).map_or(text.len(), |it| begin + it)))
    }

    fn hides_variable(&self, name: &str) -> bool {
        if self.matches(name) {
            return true;
        }
        if !self.well_known || says_where(name) || WORKING_DIRECTORIES.contains(&name) {
            return false;
        }
        let plain = plain(name);
        WORDS.iter().chain(&VARIABLE_WORDS).any(|word| plain.contains(word)) || has_whole_word(name)
    }

    fn hides_option(&self, name: &str) -> bool {
        if self.matches(name) {
            return true;
        }
        if !self.well_known || says_where(name) {
            return false;
        }
        let plain = plain(name);
        WORDS.iter().any(|word| plain.contains(word)) || has_whole_word(name)
    }

    fn matches(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_match(name))
    }
}

/// What the next argument is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Shown,
    Secret,
    /// `user:password`.
    User,
}

/// Where the password is in an address whose authority begins at `begin`.
fn password_of_address(text: &str, begin: usize) -> Option<(usize, usize)> {
    let authority_ends = |it: char| it.is_whitespace() || matches!(it, '/' | '?' | '#' | '"' | '\'' | ',' | ';' | '|');
    let authority = &text[begin..];
    let authority = &authority[..authority.find(authority_ends).unwrap_or(authority.len())];
    let user = &authority[..authority.rfind('@')?];
    let colon = user.find(':')?;
    Some((begin + colon + 1, begin + user.len()))
}

/// The user and password in an argument that is `option`; empty where they are the next argument. A long option has them behind a `=`, a short
/// one attached.
fn user_of<'a>(program: &str, option: &str, argument: &'a str) -> Option<&'a str> {
    if option.starts_with("--") {
        let rest = argument.strip_prefix(option)?;
        return if rest.is_empty() { Some(rest) } else { rest.strip_prefix('=') };
    }
    let letters = argument.strip_prefix('-')?;
    let letters = if program == "curl" { letters.trim_start_matches(|it| CURL_SWITCHES.contains(it)) } else { letters };
    letters.strip_prefix(option.trim_start_matches('-'))
}

fn user_masked(argument: &str) -> Cow<'_, str> {
    match argument.split_once([':', '%']) {
        Some((user, _)) => Cow::Owned(format!("{user}{}{MASK}", &argument[user.len()..=user.len()])),
        None => Cow::Borrowed(argument),
    }
}

/// `mysql` of `/usr/bin/mysql`.
fn program_of(argument: &str) -> &str {
    argument.rsplit('/').next().unwrap_or(argument)
}

fn is_name_character(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.')
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_name_character)
}

/// Lower case, without what separates words: `API_KEY` and `api-key` are `apikey`.
///
/// Tokens of a language model are no secrets.
fn plain(name: &str) -> String {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect();
    if plain.contains("token") { plain.replace("tokens", "").replace("tokenizer", "") } else { plain }
}

fn words(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.split(|it: char| !it.is_ascii_alphanumeric())
}

fn has_whole_word(name: &str) -> bool {
    words(name).any(|it| WHOLE_WORDS.iter().any(|word| it.eq_ignore_ascii_case(word)))
}

fn says_where(name: &str) -> bool {
    words(name).next_back().is_some_and(|last| PLACES.iter().any(|place| last.eq_ignore_ascii_case(place)))
}

#[cfg(test)]
mod tests;
