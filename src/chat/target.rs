//! The target of a command: the member whose name its arguments begin with.
//!
//! Names may contain spaces, so where the name ends depends on who is present. Everything else is computed here, on the
//! client's own thread: the key of each name that the arguments may begin with. The room only looks up the keys.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::name_key::NameKey;
use super::username::Username;

/// How many names the arguments of a command may begin with: half of a name's characters can be spaces.
const MAX_CANDIDATES: usize = Username::MAX_CHARS / 2;
/// The longest text that is compared with names, in characters. A character of a name may be written as several.
const MAX_TEXT_CHARS: usize = 3 * Username::MAX_CHARS;
/// The longest form of a name that is allowed, in bytes: a character takes at most 33 in either form.
const MAX_KEY_BYTES: usize = 33 * Username::MAX_CHARS;

/// A target with the rest of the command's arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(String, Vec<Candidate>)", into = "(String, Vec<Candidate>)")]
pub struct Target {
    text: String,
    /// The name in quotes that the text begins with, or else the names that it may begin with, the longest first.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate {
    key: NameKey,
    /// Where the rest of the text starts, in bytes.
    rest: usize,
}

impl From<Target> for (String, Vec<Candidate>) {
    fn from(Target { text, candidates }: Target) -> Self {
        (text, candidates)
    }
}

/// Refuses what is not parsed from the text.
impl TryFrom<(String, Vec<Candidate>)> for Target {
    type Error = &'static str;

    fn try_from((text, candidates): (String, Vec<Candidate>)) -> Result<Self, Self::Error> {
        match candidates.iter().all(|candidate| text.is_char_boundary(candidate.rest)) {
            true => Ok(Self { text, candidates }),
            false => Err("the rest of a command does not begin within its text"),
        }
    }
}

/// The members whose names the text begins with.
pub enum Found<'a, M> {
    None,
    One(M, &'a str),
    Several(Vec<M>),
}

impl Target {
    pub fn parse(text: &str) -> Self {
        let candidates = match split_quoted(text) {
            // Exactly this name: in its absence, no other may get what is meant for it.
            Some((name, rest)) => {
                key(&name).map(|key| Candidate { key, rest: text.len() - rest.len() }).into_iter().collect()
            }
            None => unquoted(text),
        };
        Self { text: text.to_owned(), candidates }
    }

    /// Finds the target by its key. A member that is found by several keys counts once.
    pub fn find<M: Copy + PartialEq>(&self, member: impl Fn(&NameKey) -> Option<M>) -> Found<'_, M> {
        let mut found: Vec<(M, &Candidate)> = Vec::new();
        for candidate in &self.candidates {
            if let Some(member) = member(&candidate.key)
                && !found.iter().any(|&(other, _)| other == member)
            {
                found.push((member, candidate));
            }
        }
        match found[..] {
            [] => Found::None,
            [(member, candidate)] => Found::One(member, self.rest(candidate)),
            _ => Found::Several(found.into_iter().map(|(member, _)| member).collect()),
        }
    }

    /// The first word, or the text in quotes, for the error that nobody has this name.
    pub fn name(&self) -> String {
        let name = match split_quoted(&self.text) {
            Some((name, _)) => name,
            None => self.text.split_whitespace().next().unwrap_or_default().to_owned(),
        };
        name.chars().take(Username::MAX_CHARS).collect()
    }

    fn rest(&self, candidate: &Candidate) -> &str {
        self.text[candidate.rest..].trim()
    }
}

/// The key of a name that is given on its own; `None`: the text is too long to be a name.
pub fn key(name: &str) -> Option<NameKey> {
    let name = name.trim();
    (!is_too_long(name)).then(|| NameKey::of(name)).filter(fits_a_name)
}

/// Whether a text is longer than any spelling of a name. Some characters become 18 under NFKC.
fn is_too_long(text: &str) -> bool {
    text.chars().nth(MAX_TEXT_CHARS).is_some() || text.nfkc().nth(Username::MAX_NFKC_CHARS).is_some()
}

/// Whether a key is short enough for a name. The hub compares keys, so their length must not be a client's choice.
fn fits_a_name(key: &NameKey) -> bool {
    key.spelling().len().max(key.skeleton().len()) <= MAX_KEY_BYTES
}

/// A name in double quotes, as commands accept it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn unquoted(text: &str) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let (mut key, mut end) = (NameKey::default(), 0);
    for word in text.split_whitespace().take(MAX_CANDIDATES) {
        // Words are parts of `text`, in their order.
        end += text[end..].find(word).unwrap_or_default() + word.len();
        if is_too_long(text[..end].trim_start()) {
            break;
        }
        key.push_word(word);
        if !fits_a_name(&key) {
            break;
        }
        candidates.push(Candidate { key: key.clone(), rest: end });
    }
    candidates.reverse();
    candidates
}

/// Splits a text that begins with a name in double quotes into the name and the rest. Two quotes within the name
/// stand for one.
pub fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None if after.is_empty() || after.starts_with(char::is_whitespace) => return Some((name, after)),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::name_map::NameMap;

    /// The member that is found, by its index, with the rest of the text.
    fn find(text: &str, members: &[&str]) -> Result<(usize, String), Vec<usize>> {
        let mut names = NameMap::default();
        for (at, name) in members.iter().enumerate() {
            names.insert(&NameKey::of(name), at);
        }
        let target = Target::parse(text);
        match target.find(|key| names.get(key)) {
            Found::None => Err(Vec::new()),
            Found::One(member, rest) => Ok((member, rest.to_owned())),
            Found::Several(members) => Err(members),
        }
    }

    fn one(member: usize, rest: &str) -> Result<(usize, String), Vec<usize>> {
        Ok((member, rest.to_owned()))
    }

    #[test]
    fn the_name_present_that_the_text_begins_with_is_the_target() {
        assert_eq!(find("ann lee  how are you", &["Bob", "Ann Lee"]), one(1, "how are you"));
        assert_eq!(find("Ann leeway", &["Ann"]), one(0, "leeway"));
        assert_eq!(find("Ann", &["Ann"]), one(0, ""));
        assert_eq!(find("Annabel hi", &["Ann"]), Err(vec![]));
        assert_eq!(find("", &["Ann"]), Err(vec![]));
    }

    /// "Bob I" once got what was meant for "Bob": `/whisper Bob I love you`.
    #[test]
    fn several_names_that_the_text_begins_with_are_ambiguous() {
        let members = ["Bob", "Bob I"];
        assert_eq!(find("Bob I love you", &members), Err(vec![1, 0]));
        assert_eq!(find("Bob I", &members), Err(vec![1, 0]));
        assert_eq!(find("Bob hi", &members), one(0, "hi"));
        assert_eq!(find("\"Bob\" I love you", &members), one(0, "I love you"));
        assert_eq!(find("\"bob i\" love you", &members), one(1, "love you"));
    }

    #[test]
    fn quotes_in_a_name_are_doubled() {
        let members = ["Bob", "\"Bob\"", "say \"hi\" all", "\"Eve"];
        assert_eq!(find("\"Bob\" x", &members), one(0, "x"), "in quotes");
        assert_eq!(find("\"Bob\" x", &members[1..]), Err(vec![]), "no other name in its place");
        for (at, name) in members.iter().enumerate() {
            assert_eq!(find(&format!("{} x", quoted(name)), &members), one(at, "x"), "{name}");
        }
        assert_eq!(find("\"Eve x", &members), one(3, "x"), "an unclosed quote is part of the name");
        assert_eq!(find("\"Bob\"x", &members), Err(vec![]));
    }

    #[test]
    fn the_error_names_what_was_looked_for() {
        assert_eq!(Target::parse("Annabel hi").name(), "Annabel");
        assert_eq!(Target::parse("\"Ann Lee\" hi").name(), "Ann Lee");
        assert_eq!(Target::parse(&"x".repeat(100)).name(), "x".repeat(Username::MAX_CHARS));
    }

    proptest! {
        /// 965 bytes of `/whisper` once cost the hub 823 µs.
        #[test]
        fn the_work_for_the_room_is_bounded(text in "([ﷺa\" ]|\\PC){0,2000}") {
            let target = Target::parse(&text);
            prop_assert!(target.candidates.len() <= MAX_CANDIDATES);
            for candidate in &target.candidates {
                let key = &candidate.key;
                prop_assert!(key.spelling().len().max(key.skeleton().len()) <= MAX_KEY_BYTES, "{key:?}");
                // Doubled quotes take twice as many characters as the name that they stand for.
                let length = text[..candidate.rest].trim().chars().count();
                prop_assert!(length <= 2 * MAX_TEXT_CHARS + 2, "{length}");
            }
        }

        /// No allowed name may be too long for a target.
        #[test]
        fn every_allowed_name_is_found(text in "[ﷺ‱㌇ﬃ \u{301}]{1,40}|\\PC{1,40}") {
            if let Ok(name) = Username::parse(&text) {
                let shown: &str = name.shown();
                prop_assert_eq!(find(&format!("{} x", quoted(shown)), &[shown]), one(0, "x"));
                prop_assert!(key(shown).is_some());
            }
        }

        #[test]
        fn a_quoted_name_is_found(name in "[ab\"]([ab \"]{0,5}[ab\"])?", rest in "[ab\"]{0,5}") {
            let found = find(&format!("{} {rest}", quoted(&name)), &[&name]);
            prop_assert_eq!(found, one(0, &rest));
        }
    }
}
