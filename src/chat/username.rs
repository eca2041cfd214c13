//! Names: which are allowed, and when two are the same (docs/protocol.md).

use std::sync::Arc;

use thiserror::Error;
use unicase::UniCase;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::protocol::SYSTEM;

/// An allowed name: as it is shown, and as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Username {
    shown: Arc<str>,
    key: NameKey,
}

/// A name as it is compared: after NFKC and case folding, so that `Bob`, `bob` and `Ｂｏｂ` are one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameKey(Arc<str>);

impl Username {
    /// The longest name, in characters after trimming.
    pub const MAX_CHARS: usize = 32;

    /// # Errors
    /// The name is not allowed. `Display` is a message for the user.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let shown = text.trim();
        if shown.is_empty() {
            return Err(NameError::Empty);
        }
        if shown.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(NameError::TooLong);
        }
        if let Some(character) = shown.chars().find(|&character| !is_allowed(character)) {
            return Err(NameError::Character(character));
        }
        if shown.contains("  ") {
            return Err(NameError::DoubleSpace);
        }
        // Marks need a base character.
        if shown.chars().all(|character| character.general_category_group() == GeneralCategoryGroup::Mark) {
            return Err(NameError::Empty);
        }
        let key = NameKey::of(shown);
        if key == NameKey::of(SYSTEM) {
            return Err(NameError::Reserved);
        }
        Ok(Self { shown: shown.into(), key })
    }

    /// The name as the client sent it, trimmed.
    pub fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    pub fn key(&self) -> &NameKey {
        &self.key
    }
}

impl NameKey {
    pub fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self(text.to_ascii_lowercase().into());
        }
        // Variation selectors are dropped, as NFKC_Casefold does: most change nothing that a reader sees.
        // Normalizing twice, because folding can denormalize.
        let normal: String = text.chars().filter(|&character| !is_variation(character)).nfkc().collect();
        let folded = UniCase::unicode(normal).to_folded_case();
        Self(folded.nfkc().collect::<String>().into())
    }
}

/// Letters, digits, marks, punctuation, symbols and the plain space. These groups exclude unassigned,
/// private-use, control and format characters (bidirectional overrides, zero-width characters).
fn is_allowed(character: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    let group = character.general_category_group();
    character == ' '
        || (matches!(group, Letter | Number | Mark | Punctuation | Symbol) && !is_blank(character))
}

/// Letters, marks and symbols that render as blank.
fn is_blank(character: char) -> bool {
    matches!(
        character,
        '\u{034F}'
            | '\u{115F}'
            | '\u{1160}'
            | '\u{17B4}'
            | '\u{17B5}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{FFA0}'
            | '\u{16FE4}'
            | '\u{1D159}'
    )
}

fn is_variation(character: char) -> bool {
    matches!(character, '\u{180B}'..='\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum NameError {
    #[error("The username must not be blank.")]
    Empty,
    #[error("The username must not be longer than {} characters.", Username::MAX_CHARS)]
    TooLong,
    #[error("The username must not contain two spaces in a row.")]
    DoubleSpace,
    #[error("The username {SYSTEM} is reserved: choose another.")]
    Reserved,
    #[error("The username must not contain the character U+{:04X}.", u32::from(*.0))]
    Character(char),
    #[error("The username {0} is in use: choose another.")]
    InUse(Arc<str>),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_in_many_scripts_are_allowed() {
        for name in [
            "Bob",
            "O'Neill",
            "Ann Lee",
            "Ünal",
            "李小龍",
            "नेहा",
            "🦀",
            "❤\u{FE0F}",
            "x",
            "<b>",
            "a.b_c-d",
            "٣",
        ] {
            assert_eq!(&**Username::parse(name).expect(name).shown(), name);
        }
        assert_eq!(&**Username::parse("\t Bob\n").unwrap().shown(), "Bob");
        assert!(Username::parse(&"é".repeat(Username::MAX_CHARS)).is_ok());
    }

    #[test]
    fn names_that_are_not_allowed_are_refused() {
        let long = "é".repeat(Username::MAX_CHARS + 1);
        for (name, expected) in [
            ("", NameError::Empty),
            (" \u{3000}\t", NameError::Empty),
            ("\u{FE0F}", NameError::Empty),
            ("\u{301}\u{301}", NameError::Empty),
            (&long, NameError::TooLong),
            ("a  b", NameError::DoubleSpace),
            ("System", NameError::Reserved),
            (" sYSTEM ", NameError::Reserved),
            ("Ｓystem", NameError::Reserved),
            ("Sy\u{FE00}stem", NameError::Reserved),
            ("a\nb", NameError::Character('\n')),
            ("a\u{0}", NameError::Character('\u{0}')),
            ("a\u{202E}b", NameError::Character('\u{202E}')),
            ("a\u{2066}b", NameError::Character('\u{2066}')),
            ("a\u{200B}b", NameError::Character('\u{200B}')),
            ("a\u{200D}b", NameError::Character('\u{200D}')),
            ("\u{FEFF}a", NameError::Character('\u{FEFF}')),
            ("a\u{00AD}b", NameError::Character('\u{00AD}')),
            ("a\u{00A0}b", NameError::Character('\u{00A0}')),
            ("a\u{2028}b", NameError::Character('\u{2028}')),
            ("a\u{E000}", NameError::Character('\u{E000}')),
            ("\u{3164}", NameError::Character('\u{3164}')),
            ("\u{1D159}", NameError::Character('\u{1D159}')),
            ("\u{2800}", NameError::Character('\u{2800}')),
        ] {
            assert_eq!(Username::parse(name).expect_err(name), expected, "{name:?}");
        }
    }

    #[test]
    fn equivalent_spellings_are_one_name() {
        for (one, other) in [
            ("Bob", "bob"),
            ("Bob", "Ｂｏｂ"),
            ("STRASSE", "straße"),
            ("Ünal", "u\u{308}nal"),
            ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
            ("ﬁsh", "FISH"),
            ("❤\u{FE0F}", "❤"),
        ] {
            assert_eq!(NameKey::of(one), NameKey::of(other), "{one} {other}");
        }
        assert_ne!(NameKey::of("Bob"), NameKey::of("Bo b"));
    }

    proptest! {
        #[test]
        fn an_accepted_name_can_be_shown(text: String) {
            if let Ok(name) = Username::parse(&text) {
                let shown = name.shown();
                prop_assert!((1..=Username::MAX_CHARS).contains(&shown.chars().count()));
                prop_assert!(!shown.chars().any(char::is_control));
                prop_assert_eq!(shown.trim(), &**shown);
                let again = Username::parse(shown).unwrap();
                prop_assert_eq!(again.key(), name.key());
            }
        }

        #[test]
        fn case_makes_no_difference(text in "\\PC{1,32}") {
            prop_assert_eq!(NameKey::of(&text), NameKey::of(&NameKey::of(&text).0));
            let upper = text.chars().flat_map(char::to_uppercase).collect::<String>();
            let lower = upper.chars().flat_map(char::to_lowercase).collect::<String>();
            prop_assert_eq!(NameKey::of(&upper), NameKey::of(&lower));
        }
    }
}
