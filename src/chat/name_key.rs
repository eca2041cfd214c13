//! When two names are the same (docs/protocol.md): if they are spelled alike or look alike.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use unicase::UniCase;
use unicode_normalization::UnicodeNormalization;
use unicode_security::skeleton;

/// After this many rounds, a text no longer changes (tested for every character).
const MAX_ROUNDS: usize = 4;

/// A name as it is compared, in two forms. Names are the same if they agree in either of them: see
/// [`NameMap`](super::name_map::NameMap).
///
/// A single form is not enough. The Greek capital Ν looks like N, and its lower case ν looks like v: a form that
/// ignores both case and look-alikes would make N and V one letter, and `Ben` and `Bev` one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(Form, Form)", into = "(Form, Form)")]
pub struct NameKey {
    /// Equal for names that are equal after NFKC and case folding: `Bob`, `bob` and `Ｂｏｂ`.
    spelling: Form,
    /// Equal for names with the same UTS 39 skeleton: `Will` and `WiII`.
    skeleton: Form,
}

/// A form of a name, with its hash. It is computed where the key is: on a client's own thread, so that looking up a
/// long name takes the hub no longer than looking up a short one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Form {
    text: String,
    hash: u64,
}

/// Clients do not know its keys, so they cannot choose names whose hashes collide.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Form {
    fn new(text: String) -> Self {
        let hash = HASHER.hash_one(&text);
        Self { text, hash }
    }
}

impl From<String> for Form {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Form> for String {
    fn from(form: Form) -> Self {
        form.text
    }
}

impl Default for Form {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl Hash for Form {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl From<(Form, Form)> for NameKey {
    fn from((spelling, skeleton): (Form, Form)) -> Self {
        Self { spelling, skeleton }
    }
}

impl From<NameKey> for (Form, Form) {
    fn from(key: NameKey) -> Self {
        (key.spelling, key.skeleton)
    }
}

impl NameKey {
    pub fn of(text: &str) -> Self {
        let mut key = Self::default();
        text.split_whitespace().for_each(|word| key.push_word(word));
        key
    }

    /// Adds a word to the name. The forms of a word do not depend on the words next to it.
    pub fn push_word(&mut self, word: &str) {
        push(&mut self.spelling, &fixed_point(fold(word), fold));
        push(&mut self.skeleton, &fixed_point(skeleton(word).collect(), fold_except_l));
    }

    /// Whether the names are the same: if they agree in either form.
    pub fn is_same(&self, other: &Self) -> bool {
        self.spelling == other.spelling || self.skeleton == other.skeleton
    }

    pub fn spelling(&self) -> &str {
        &self.spelling.text
    }

    pub fn skeleton(&self) -> &str {
        &self.skeleton.text
    }

    /// The spelling and the skeleton.
    pub fn forms(&self) -> [&Form; 2] {
        [&self.spelling, &self.skeleton]
    }

    /// The size of both forms, in bytes.
    pub fn bytes(&self) -> usize {
        self.spelling().len() + self.skeleton().len()
    }
}

/// Adds a word after a space. Some characters are folded to several words.
fn push(form: &mut Form, word: &str) {
    let mut text = std::mem::take(&mut form.text);
    for word in word.split_whitespace() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    *form = Form::new(text);
}

/// Takes the skeleton and folds it until nothing changes: a skeleton can contain capitals (O for 0), and folding can
/// produce a character that looks like another (m like rn).
fn fixed_point(mut text: String, fold: fn(&str) -> String) -> String {
    for _ in 0..MAX_ROUNDS {
        let next = fold(&skeleton(&text).collect::<String>());
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// NFKC and case folding.
fn fold(text: &str) -> String {
    fold_around(text, None)
}

/// In skeletons, l also stands for I and 1, and L looks like neither: `Ian` and `Lan` are different names.
fn fold_except_l(text: &str) -> String {
    fold_around(text, Some('L'))
}

fn fold_around(text: &str, kept: Option<char>) -> String {
    // Variation selectors are dropped, as NFKC_Casefold does: most have no visible effect.
    // Decomposed first (Unicode, D146): folding ᾳ before another mark would move the mark to its iota. Normalized again,
    // because folding can denormalize.
    let normal: String = text.chars().filter(|&character| !is_variation_selector(character)).nfkd().collect();
    let pieces = normal.split_inclusive(|character| Some(character) == kept);
    let fold = |piece: &str| match kept.and_then(|kept| piece.strip_suffix(kept)) {
        Some(rest) => UniCase::unicode(rest).to_folded_case() + "L",
        None => UniCase::unicode(piece).to_folded_case(),
    };
    pieces.map(fold).collect::<String>().nfkc().collect()
}

pub fn is_variation_selector(character: char) -> bool {
    matches!(character, '\u{180B}'..='\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::username::Username;

    /// Whether two names are the same.
    fn same(one: &str, other: &str) -> bool {
        NameKey::of(one).is_same(&NameKey::of(other))
    }

    fn text_of_look_alikes() -> impl Strategy<Value = String> {
        "[IiLl10OoMmrnVvΝνΒβßſKKбВвꜱҊ㌇ﷺªﬁ\u{301}\u{345}\u{FE0F}%\u{37A}]{0,6}|\\PC{0,8}"
    }

    #[test]
    fn equivalent_spellings_are_one_name() {
        for (one, other) in [
            ("Bob", "bob"),
            ("Bob", "Ｂｏｂ"),
            ("STRASSE", "straße"),
            ("Ünal", "u\u{308}nal"),
            ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
            ("ΝΊΚΟΣ", "νίκος"),
            ("ﬁsh", "FISH"),
            ("❤\u{FE0F}", "❤"),
            ("ᾳ\u{591}", "α\u{591}ι"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
    }

    /// `раypal` with Cyrillic letters was once a different name from `paypal`.
    #[test]
    fn names_that_look_alike_are_one_name() {
        for (one, other) in [
            ("paypal", "раypal"),
            ("paypal", "Раypal"),
            ("Bob", "Воb"),
            ("bob", "Воb"),
            ("nick", "Νick"),
            ("ANN", "ΑΝΝ"),
            ("Will", "WiII"),
            ("Will", "Wi1l"),
            ("Ian", "lan"),
            ("Bob", "B0b"),
            ("Marnie", "Mamie"),
            ("Bob", "Bob\u{200B}"),
            ("Scope", "Ѕсоре"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
    }

    /// Spellings and skeletons are compared separately: a single form would make N and V one letter, because of the
    /// Greek Ν and ν.
    #[test]
    fn names_that_look_different_are_different() {
        for (one, other) in [
            ("Ben", "Bev"),
            ("Ray", "Yar"),
            ("Ian", "Lan"),
            ("ALI", "AIL"),
            ("Bob", "Bo b"),
            ("Bob", "Bobb"),
            ("José", "Jose"),
            ("李", "季"),
            ("नेहा", "नहा"),
            ("🦀", "🦐"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn both_forms_of_every_character_reach_a_fixed_point() {
        let ideographs_and_syllables =
            ['\u{3400}'..='\u{9FFF}', '\u{AC00}'..='\u{D7A3}', '\u{20000}'..=char::MAX];
        for character in ('!'..=char::MAX).filter(|character| !character.is_whitespace()) {
            if ideographs_and_syllables.iter().any(|range| range.contains(&character)) {
                continue;
            }
            let key = NameKey::of(&character.to_string());
            assert_eq!(fixed_point(key.spelling().to_owned(), fold), key.spelling(), "{character:?}");
            assert_eq!(
                fixed_point(key.skeleton().to_owned(), fold_except_l),
                key.skeleton(),
                "{character:?}"
            );
            assert!(key.spelling().len().max(key.skeleton().len()) <= 33, "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn names_that_fold_to_the_same_text_have_the_same_spelling(text in text_of_look_alikes()) {
            let key = NameKey::of(&text);
            // Between marks, a variation selector would keep them from being put in order.
            let nfd: String = text.chars().filter(|&character| !is_variation_selector(character)).nfd().collect();
            for other in [
                fold(&text),
                text.nfkc().collect(),
                text.nfd().collect(),
                // Folding text that is not normalized can change the order of its combining characters.
                UniCase::unicode(&nfd).to_folded_case(),
            ] {
                prop_assert_eq!(NameKey::of(&other).spelling, key.spelling.clone(), "{}", other);
            }
        }

        #[test]
        fn a_text_and_its_skeleton_have_the_same_skeleton(text in text_of_look_alikes()) {
            let look_alike: String = skeleton(&text).collect();
            prop_assert_eq!(NameKey::of(&look_alike).skeleton, NameKey::of(&text).skeleton);
        }

        #[test]
        fn a_key_is_its_own_key(text in text_of_look_alikes()) {
            let key = NameKey::of(&text);
            prop_assert_eq!(NameKey::of(key.spelling()).spelling, key.spelling.clone());
            prop_assert_eq!(NameKey::of(key.skeleton()).skeleton, key.skeleton.clone());
        }

        /// [`NameKey::of`] relies on it: it builds a key word by word.
        #[test]
        fn the_words_of_an_allowed_name_do_not_affect_each_other(text in "\\PC{1,12} \\PC{1,12}") {
            if let Ok(name) = Username::parse(&text) {
                let whole = fixed_point(fold(name.shown()), fold);
                let whole: Vec<&str> = whole.split_whitespace().collect();
                prop_assert_eq!(name.key().spelling(), whole.join(" "));
            }
        }
    }
}
