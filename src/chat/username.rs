//! Names: which are allowed (docs/protocol.md).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeEmoji, UnicodeGeneralCategory};

use super::marks::{MAX_MARKS, has_too_many_marks};
use super::name_key::{NameKey, is_variation_selector};
use super::protocol::SYSTEM;
use super::reserved::looks_like_system;

/// An allowed name: as it is shown, and as it is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(Arc<str>, Arc<NameKey>)", into = "(Arc<str>, Arc<NameKey>)")]
pub struct Username {
    shown: Arc<str>,
    key: Arc<NameKey>,
}

impl Username {
    /// The longest name, in characters after trimming.
    pub const MAX_CHARS: usize = 32;
    /// The longest name after NFKC, in characters. One U+FDFA becomes 18 of them.
    pub const MAX_NFKC_CHARS: usize = 4 * Self::MAX_CHARS;

    /// # Errors
    /// The name is not allowed. `Display` is a message for the user.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let shown = text.trim();
        let Some(first) = shown.chars().next() else { return Err(NameError::Empty) };
        if shown.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(NameError::TooLong);
        }
        if shown.nfkc().nth(Self::MAX_NFKC_CHARS).is_some() {
            return Err(NameError::TooLong);
        }
        if let Some(character) = first_not_allowed(shown) {
            return Err(NameError::Character(character));
        }
        if shown.contains("  ") {
            return Err(NameError::DoubleSpace);
        }
        if first.general_category_group() == GeneralCategoryGroup::Mark {
            return Err(NameError::BeginsWithMark);
        }
        if has_too_many_marks(shown) {
            return Err(NameError::TooManyMarks);
        }
        if looks_like_system(shown) {
            return Err(NameError::Reserved);
        }
        Ok(Self { shown: shown.into(), key: NameKey::of(shown).into() })
    }

    /// The name as the client sent it, trimmed.
    pub fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    pub fn key(&self) -> &Arc<NameKey> {
        &self.key
    }
}

fn first_not_allowed(name: &str) -> Option<char> {
    let mut characters = name.chars().peekable();
    let mut previous = ' ';
    while let Some(character) = characters.next() {
        let is_emoji_style = matches!(character, '\u{FE0E}' | '\u{FE0F}')
            && if previous.is_ascii() {
                // Digits, # and * are the base characters of keycaps: 1️⃣.
                previous.is_emoji_char() && characters.peek() == Some(&KEYCAP)
            } else {
                previous.is_emoji_char()
            };
        if !is_allowed(character) && !is_emoji_style {
            return Some(character);
        }
        previous = character;
    }
    None
}

const KEYCAP: char = '\u{20E3}';

/// Letters, digits, marks, punctuation, symbols and the plain space. These groups exclude unassigned,
/// private-use, control and format characters (bidirectional overrides, zero-width characters).
fn is_allowed(character: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    let group = character.general_category_group();
    character == ' '
        || (matches!(group, Letter | Number | Mark | Punctuation | Symbol)
            && !is_blank(character)
            && !is_variation_selector(character))
}

/// Letters, marks and symbols that render as blank: those that are default-ignorable, and a few others.
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
            | '\u{FFFC}'
            | '\u{13441}'
            | '\u{13442}'
            | '\u{16FE4}'
            | '\u{1D159}'
    )
}

/// One that was parsed by another server. Its key is not computed again: with another version of Unicode, it would
/// differ.
impl From<(Arc<str>, Arc<NameKey>)> for Username {
    fn from((shown, key): (Arc<str>, Arc<NameKey>)) -> Self {
        Self { shown, key }
    }
}

impl From<Username> for (Arc<str>, Arc<NameKey>) {
    fn from(name: Username) -> Self {
        (name.shown, name.key)
    }
}

/// The name as it is shown.
impl fmt::Display for Username {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum NameError {
    #[error("The username must not be blank.")]
    Empty,
    #[error("The username must not begin with a combining mark.")]
    BeginsWithMark,
    #[error("The username must not have more than {MAX_MARKS} combining marks on one character.")]
    TooManyMarks,
    #[error("The username must not be longer than {} characters.", Username::MAX_CHARS)]
    TooLong,
    #[error("The username must not contain two spaces in a row.")]
    DoubleSpace,
    #[error("The username {SYSTEM} and names that look like it are reserved: choose another.")]
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
            "Nguyễn Văn Đệ",
            "Nguye\u{302}\u{303}n",
            "Łukasz",
            "Σίσυφος",
            "ᾧδε",
            "Сергей",
            "Юлія",
            "Մարիամ",
            "მარიამი",
            "محمّد",
            "عَبْدُ اللَّٰه",
            "مهدی",
            "משה",
            "מֹשֶׁה",
            "नेहा",
            "लक्ष्मी",
            "ঐশ্বর্যা",
            "ਗੁਰਪ੍ਰੀਤ",
            "தமிழ்ச்செல்வி",
            "ശ്രീജിത്ത്",
            "සුනිල්",
            "ณัฏฐ์",
            "กี่",
            "ຄໍາ",
            "བསོད་ནམས",
            "སྒྲུབས",
            "မြင့်",
            "ស្រីមុំ",
            "ተስፋዬ",
            "李小龍",
            "さくら",
            "が",
            "ジョン",
            "한국",
            "\u{1112}\u{1161}\u{11AB}",
            "ᏣᎳᎩ",
            "🦀",
            "❤\u{FE0F}",
            "☀\u{FE0E}",
            "☝🏽",
            "🇩🇪",
            "1\u{FE0F}\u{20E3}",
            "#\u{FE0F}\u{20E3}",
            "x",
            "<b>",
            "a.b_c-d",
            "\"Bob\"",
            "٣",
        ] {
            assert_eq!(&**Username::parse(name).expect(name).shown(), name);
        }
        assert_eq!(&**Username::parse("\t Bob\n").unwrap().shown(), "Bob");
        assert!(Username::parse(&"é".repeat(Username::MAX_CHARS)).is_ok());
        assert!(Username::parse(&"\u{FDFA}".repeat(7)).is_ok());
    }

    #[test]
    fn names_that_are_not_allowed_are_refused() {
        let long = "é".repeat(Username::MAX_CHARS + 1);
        for (name, expected) in [
            ("", NameError::Empty),
            (" \u{3000}\t", NameError::Empty),
            ("\u{FE0F}", NameError::Character('\u{FE0F}')),
            ("\u{301}\u{301}", NameError::BeginsWithMark),
            ("\u{301}a", NameError::BeginsWithMark),
            ("a\u{301}\u{301}\u{301}", NameError::TooManyMarks),
            (&long, NameError::TooLong),
            (&"\u{FDFA}".repeat(8), NameError::TooLong),
            ("a  b", NameError::DoubleSpace),
            ("System", NameError::Reserved),
            (" sYSTEM ", NameError::Reserved),
            ("Ｓystem", NameError::Reserved),
            ("Sуstem", NameError::Reserved),
            ("System.", NameError::Reserved),
            ("ꜱʏꜱᴛᴇᴍ", NameError::Reserved),
            ("Sy\u{FE00}stem", NameError::Character('\u{FE00}')),
            ("Bob\u{FE0F}", NameError::Character('\u{FE0F}')),
            ("1\u{FE0F}", NameError::Character('\u{FE0F}')),
            ("❤\u{FE0F}\u{FE0F}", NameError::Character('\u{FE0F}')),
            ("❤\u{FE01}", NameError::Character('\u{FE01}')),
            ("葛\u{E0100}", NameError::Character('\u{E0100}')),
            ("a\u{180B}", NameError::Character('\u{180B}')),
            ("Bob\u{E0062}", NameError::Character('\u{E0062}')),
            ("Bob\u{E0001}", NameError::Character('\u{E0001}')),
            ("Bob\u{115F}", NameError::Character('\u{115F}')),
            ("Bob\u{1160}", NameError::Character('\u{1160}')),
            ("Bob\u{FFA0}", NameError::Character('\u{FFA0}')),
            ("Bob\u{34F}", NameError::Character('\u{34F}')),
            ("Bob\u{FFFC}", NameError::Character('\u{FFFC}')),
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

    /// Default-ignorable characters are those in the tables of unicode-security.
    #[test]
    fn nothing_invisible_is_allowed() {
        for character in ('\u{80}'..=char::MAX).filter(|&character| is_allowed(character)) {
            let is_invisible = unicode_security::skeleton(&format!("a{character}")).eq(['a']);
            assert!(!is_invisible, "{character:?}");
        }
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
    }
}
