//! Secrets on command lines: behind options, and where a program is known to take them.

use super::names::{self, is_name};
use super::programs::{
    ATTACHED, CONTAINERS, CURL_SWITCHES, HTPASSWD, LITERAL, PLACES, SHELLS, SHORT, SLASHED, SUBCOMMANDS, USERS, WRAPPERS, is_known,
    program_of,
};
use super::{Hidden, Masks, text};

/// How deep command lines inside of arguments are looked into.
const DEPTH_MAX: usize = 4;

/// Words of a shell after which a program is named.
const BEFORE_PROGRAMS: [&str; 9] = ["{", "!", "then", "do", "else", "if", "elif", "while", "until"];

/// Where secrets are in the command lines that `text` has in it.
pub(super) fn hide(masks: &Masks, text: &str, hidden: &mut Hidden) {
    if text.contains(char::is_whitespace) {
        script(masks, text, 0, hidden);
    }
}

/// A command line as it is read, argument by argument.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    program: &'a str,
    subcommand: &'a str,
    /// The program has not been named yet.
    awaits_program: bool,
    wraps: Wraps,
    after_option: bool,
    next: Next,
}

/// What the next argument is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Shown,
    Secret,
    /// A secret, or the name of a file.
    Key,
    /// `user:password`.
    User,
    /// That, or a password alone.
    UserOrSecret,
    /// After so many others so many secrets; options, and what has a name, are not counted.
    Places(u8, u8),
    /// `name=secret`.
    Literal,
    /// Commands of a shell.
    Script,
}

/// Whether another program may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wraps {
    #[default]
    Nothing,
    Program,
    /// The same, and names of containers and images, which may be those of programs.
    Container,
}

impl<'a> Line<'a> {
    /// The line of a program; of one that is not known any known program may follow.
    pub(super) fn of(program: &'a str) -> Self {
        let mut line = Line::default();
        // The name of a shell that somebody logged in to begins with a dash.
        line.begin(program.trim_start_matches('-').split(' ').next().unwrap_or_default());
        if program.is_empty() {
            line.wraps = Wraps::Program;
        }
        line
    }

    /// The line of a program that is still to be named.
    fn awaited() -> Self {
        Line { awaits_program: true, ..Line::default() }
    }

    /// Takes the next argument.
    pub(super) fn argument(&mut self, masks: &Masks, argument: &'a str, hidden: &mut Hidden) {
        self.word(masks, argument, Some(0), hidden);
    }

    /// `depth`: how deep the line is, where the word may have another one in it.
    fn word(&mut self, masks: &Masks, word: &'a str, depth: Option<usize>, hidden: &mut Hidden) {
        match std::mem::take(&mut self.next) {
            // An option without its value, such as `mysql --password --host db`.
            Next::Secret | Next::UserOrSecret if looks_like_option(word) => {}
            Next::Key if looks_like_option(word) || names::is_no_key(word) => {}
            Next::User if word.starts_with('-') => {}
            Next::Places(..) if word.contains('=') => {}
            Next::Places(skipped, hidden) if word.starts_with('-') => self.next = Next::Places(skipped, hidden),
            Next::Places(skipped @ 1.., hidden) => self.next = Next::Places(skipped - 1, hidden),
            Next::Shown => {}
            Next::Secret if names::is_place(word) => return,
            Next::Script if word.contains(char::is_whitespace) => {
                text::hide(masks, word, hidden);
                if let Some(depth) = depth.filter(|depth| *depth < DEPTH_MAX) {
                    script(masks, word, depth + 1, hidden);
                }
                return;
            }
            Next::Script => {}
            Next::Secret | Next::Key => return hidden.add(0..word.len()),
            Next::Places(_, left) => {
                if left > 1 {
                    self.next = Next::Places(0, left - 1);
                }
                return hidden.add(0..word.len());
            }
            Next::Literal => return hide_literal(word, 0, hidden),
            Next::User => return hide_password(word, 0, false, hidden),
            Next::UserOrSecret => return hide_password(word, 0, true, hidden),
        }
        if masks.well_known && self.known_option(word, hidden) {
            return;
        }
        let option = word.trim_start_matches('-');
        let is_option = option.len() < word.len();
        let dashes = word.len() - option.len();
        match option.split_once('=') {
            // The whole of it is one value, unless it is a script.
            Some((name, value)) if is_name(name) && masks.hides_assigned(name) && !value.is_empty() => {
                let value = within_quotes(option, name.len() + 1, option.len());
                match masks.well_known && is_option && names::is_user_and_password(name) {
                    true => hide_password(&option[value.clone()], dashes + value.start, true, hidden),
                    false if names::is_place(&option[value.clone()]) => {}
                    false => hidden.add(dashes + value.start..dashes + value.end),
                }
            }
            Some((name, value)) if is_option && masks.well_known && names::is_key(name) && !names::is_no_key(value) => {
                hidden.add(dashes + name.len() + 1..word.len());
            }
            None if is_option && is_name(option) && !names::is_switch(option) && masks.hides_option(option) => {
                let both = masks.well_known && names::is_user_and_password(option);
                self.next = if both { Next::UserOrSecret } else { Next::Secret };
            }
            None if is_option && masks.well_known && names::is_key(option) => self.next = Next::Key,
            _ => {
                text::hide(masks, word, hidden);
                if let Some(depth) = depth.filter(|depth| *depth < DEPTH_MAX && word.contains(char::is_whitespace)) {
                    script(masks, word, depth + 1, hidden);
                    if let Some((name, value)) = word.split_once('=') {
                        hidden.within(name.len() + 1, |hidden| script(masks, value, depth + 1, hidden));
                    }
                }
            }
        }
        self.follow(word);
    }

    /// Whether the word is an option of which it is known that it takes a secret.
    fn known_option(&mut self, word: &str, hidden: &mut Hidden) -> bool {
        let program = self.program;
        if word.len() > 2 && word.starts_with("-p") && ATTACHED.iter().any(|it| program.starts_with(it)) {
            hidden.add(2..word.len());
            return true;
        }
        if CONTAINERS.contains(&program)
            && let Some(literal) = rest_of(program, LITERAL, word)
        {
            match literal {
                "" => self.next = Next::Literal,
                _ => hide_literal(literal, word.len() - literal.len(), hidden),
            }
            return true;
        }
        if SLASHED.contains(&program)
            && let Some(slash) = word
                .find('/')
                .filter(|slash| *slash > 0 && !word.starts_with(['@', '-']) && (word.starts_with("userid=") || !word.contains('=')))
        {
            hidden.add(slash + 1..word.rfind('@').filter(|at| *at > slash).unwrap_or(word.len()));
            return true;
        }
        for (programs, subcommand, option) in SHORT {
            if !programs.contains(&program) || !(subcommand.is_empty() || self.subcommand == subcommand) {
                continue;
            }
            match rest_of(program, option, word) {
                Some("") => self.next = Next::Secret,
                Some(rest) => hidden.add(word.len() - rest.len()..word.len()),
                None => continue,
            }
            return true;
        }
        for (_, option) in USERS.iter().filter(|(programs, _)| programs.contains(&program)) {
            match rest_of(program, option, word) {
                Some("") => self.next = Next::User,
                Some(user) => hide_password(user, word.len() - user.len(), false, hidden),
                None => continue,
            }
            return true;
        }
        false
    }

    /// Keeps track of which program it is.
    fn follow(&mut self, word: &'a str) {
        if word.starts_with('-') {
            self.after_option = word != "--";
            if SHELLS.contains(&self.program) && !word.starts_with("--") && word.ends_with('c') {
                self.next = Next::Script;
            }
            if self.program == HTPASSWD && !word.starts_with("--") && word.contains('b') {
                self.next = Next::Places(if word.contains('n') { 1 } else { 2 }, 1);
            }
            return;
        }
        let after_option = std::mem::take(&mut self.after_option);
        if self.awaits_program {
            let is_assignment = word.split_once('=').is_some_and(|(name, _)| is_name(name));
            if !is_assignment && !BEFORE_PROGRAMS.contains(&word) {
                self.begin(word);
            }
            return;
        }
        let may_begin = match self.wraps {
            Wraps::Nothing => false,
            Wraps::Program => true,
            Wraps::Container => !after_option,
        };
        if may_begin && is_known(program_of(word)) {
            let before = self.wraps;
            self.begin(word);
            // It may be the value of an option, such as a user's name.
            if after_option {
                self.wraps = before;
            }
        } else if self.subcommand != "login" && SUBCOMMANDS.contains(&word) {
            self.subcommand = word;
            if CONTAINERS.contains(&self.program) {
                self.wraps = if word == "login" { Wraps::Nothing } else { Wraps::Container };
            }
        }
        self.await_places(word);
    }

    /// What has no name is known by the word before it.
    fn await_places(&mut self, word: &str) {
        let place = PLACES.iter().find(|(program, it, ..)| *program == self.program && it.eq_ignore_ascii_case(word));
        if let Some((.., skipped, hidden)) = place {
            self.next = Next::Places(*skipped, *hidden);
        }
    }

    fn begin(&mut self, word: &'a str) {
        let program = program_of(word);
        let wraps = WRAPPERS.contains(&program) || program.contains("entrypoint");
        let wraps = if wraps { Wraps::Program } else { Wraps::Nothing };
        *self = Line { program, wraps, ..Line::default() };
        self.await_places("");
    }
}

/// A text that may be a script, or options alone.
fn script(masks: &Masks, text: &str, depth: usize, hidden: &mut Hidden) {
    let mut line = Line::awaited();
    let mut at = 0;
    while let Some(token) = next_token(text, at) {
        at = token.end;
        if token.begin == token.end || token.breaks {
            line = Line::awaited();
            continue;
        }
        let inner = within_quotes(text, token.begin, token.end);
        let is_quoted = inner.start > token.begin;
        let word = &text[inner.clone()];
        hidden.within(inner.start, |hidden| line.word(masks, word, is_quoted.then_some(depth), hidden));
        if !is_quoted && depth < DEPTH_MAX {
            token.quoted.iter().for_each(|&(begin, end)| {
                let quoted = &text[begin..end];
                if quoted.contains(char::is_whitespace) {
                    hidden.within(begin, |hidden| script(masks, quoted, depth + 1, hidden));
                }
            });
        }
    }
}

/// A word of a script, or what ends a command.
struct Token {
    begin: usize,
    end: usize,
    breaks: bool,
    /// What stands in quotes in it.
    quoted: Vec<(usize, usize)>,
}

fn next_token(text: &str, from: usize) -> Option<Token> {
    let begin = from + text[from..].find(|it: char| !it.is_whitespace() || it == '\n')?;
    let breaks = |it: char| matches!(it, '\n' | ';' | '|' | '&' | '(' | ')' | '`');
    if text[begin..].starts_with(breaks) {
        return Some(Token { begin, end: begin + 1, breaks: true, quoted: Vec::new() });
    }
    let mut quoted = Vec::new();
    let mut end = begin;
    while let Some(it) = text[end..].chars().next() {
        let after = end + it.len_utf8();
        end = match it {
            '\\' => after + text[after..].chars().next().map_or(0, char::len_utf8),
            // A quote that is not closed is an apostrophe.
            '"' | '\'' => match end_of_quote(text, after, it) {
                Some(closed) => {
                    quoted.push((after, closed));
                    closed + 1
                }
                None => after,
            },
            _ if breaks(it) || it.is_whitespace() => break,
            _ => after,
        };
    }
    Some(Token { begin, end, breaks: false, quoted })
}

fn end_of_quote(text: &str, from: usize, quote: char) -> Option<usize> {
    let mut characters = text[from..].char_indices();
    while let Some((at, it)) = characters.next() {
        if it == quote {
            return Some(from + at);
        }
        if it == '\\' && quote == '"' {
            characters.next();
        }
    }
    None
}

/// What is between `begin` and `end`, without quotes that are around all of it.
fn within_quotes(text: &str, begin: usize, end: usize) -> std::ops::Range<usize> {
    let quote = text[begin..end].chars().next().filter(|it| matches!(it, '"' | '\''));
    match quote.and_then(|quote| end_of_quote(text, begin + 1, quote)) {
        Some(closed) if closed + 1 == end => begin + 1..closed,
        _ => begin..end,
    }
}

/// Hides the password of `user:password`, which stands at `begin`. Where there is no user: all of it, if it is a password `alone`.
fn hide_password(word: &str, begin: usize, alone: bool, hidden: &mut Hidden) {
    match word.find([':', '%', ',']) {
        Some(separator) => hidden.add(begin + separator + 1..begin + word.len()),
        None if alone => hidden.add(begin..begin + word.len()),
        None => {}
    }
}

/// Hides what is behind the name in `name=secret`, which stands at `begin`.
fn hide_literal(word: &str, begin: usize, hidden: &mut Hidden) {
    if let Some((name, secret)) = word.split_once('=') {
        hidden.add(begin + name.len() + 1..begin + name.len() + 1 + secret.len());
    }
}

/// What is behind an option in its argument; empty where that is the next argument. A long option has it behind a `=`, a short one attached.
fn rest_of<'w>(program: &str, option: &str, argument: &'w str) -> Option<&'w str> {
    if option.starts_with("--") {
        let rest = argument.strip_prefix(option)?;
        return if rest.is_empty() { Some(rest) } else { rest.strip_prefix('=') };
    }
    let Some(letter) = option.strip_prefix('-') else { return argument.strip_prefix(option) };
    let letters = argument.strip_prefix('-')?;
    let letters = if program == "curl" { letters.trim_start_matches(|it| CURL_SWITCHES.contains(it)) } else { letters };
    letters.strip_prefix(letter)
}

/// What begins with a dash and is an option all the same, not a secret that happens to.
fn looks_like_option(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-') else { return word.is_empty() };
    if let Some(long) = rest.strip_prefix('-') {
        let name = long.split('=').next().unwrap_or_default();
        return long.is_empty() || name.starts_with(|it: char| it.is_ascii_lowercase()) && is_name(name);
    }
    let name = rest.split('=').next().unwrap_or_default();
    let is_word = name.starts_with(|it: char| it.is_ascii_lowercase()) && name.chars().all(|it| it.is_ascii_lowercase() || it == '-');
    // Those of a virtual machine are a letter and a name.
    rest.chars().count() <= 1 || is_word || rest.starts_with(['D', 'X']) && rest.contains(['=', ':'])
}
