//! How many combining marks a character of a name may carry, so that they stay on its line.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// The most marks on one character, such as in Vietnamese (ệ).
pub const MAX_MARKS: usize = 2;
/// The most marks of a character's own script. Devanagari, Thai, Tibetan, Arabic or pointed Hebrew need more than
/// two: སྒྲུ has three.
pub const MAX_NATIVE_MARKS: usize = 4;

/// Whether a character carries more marks than are allowed. Marks of precomposed characters count, too.
pub fn has_too_many_marks(name: &str) -> bool {
    let (mut base, mut marks, mut native_marks) = (' ', 0, 0);
    name.nfd().any(|character| {
        if !is_stacked(character) && !is_spacing_mark(character) {
            (base, marks, native_marks) = (character, 0, 0);
        } else if !is_native(character, base) {
            marks += 1;
        } else if is_stacked(character) {
            native_marks += 1;
        }
        marks > MAX_MARKS || native_marks > MAX_NATIVE_MARKS
    })
}

/// A mark above, below or around its base. Others take up space of their own.
fn is_stacked(character: char) -> bool {
    use GeneralCategory::{EnclosingMark, NonspacingMark};
    matches!(character.general_category(), EnclosingMark | NonspacingMark)
}

fn is_spacing_mark(character: char) -> bool {
    character.general_category() == GeneralCategory::SpacingMark
}

/// Whether a mark belongs to the script of its base, and is not one of those that any letter may carry.
fn is_native(mark: char, base: char) -> bool {
    let (scripts, base) = (mark.script_extension(), base.script());
    let is_general = scripts.contains_script(Script::Latin);
    !is_general && !matches!(base, Script::Common | Script::Inherited) && scripts.contains_script(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_may_use_the_marks_that_it_needs() {
        for name in [
            "José",
            "ệ",
            "e\u{323}\u{302}",
            "Nguyễn",
            "ᾧ",
            "ǘ",
            "क्ष्मा",
            "श्रीँ",
            "ณัฏฐ์",
            "กี่",
            "སྒྲུབས",
            "ཧཱུྃ",
            "ကျွန်ုပ်",
            "اللَّٰه",
            "מֹשֶׁה",
            "שּׁ֥",
            "ស្ត្រី",
            "தமிழ்",
            "が",
            "か\u{3099}",
            "1\u{20E3}",
            "ё\u{301}",
        ] {
            assert!(!has_too_many_marks(name), "{name}");
        }
    }

    /// 28 marks on one letter once covered the surrounding lines.
    #[test]
    fn marks_cannot_be_stacked_without_limit() {
        let thai = format!("ก{}", "\u{E47}".repeat(MAX_NATIVE_MARKS + 1));
        let devanagari = format!("क{}", "\u{93C}".repeat(MAX_NATIVE_MARKS + 1));
        let foreign = format!("a{}", "\u{E47}".repeat(MAX_MARKS + 1));
        let in_between = format!("क{}", "\u{301}\u{93E}".repeat(MAX_MARKS + 1));
        for name in [
            "a\u{301}\u{302}\u{303}",
            "á\u{302}\u{303}",
            "ệ\u{301}",
            "ab\u{301}\u{301}\u{301}c",
            "a\u{20DD}\u{20DD}\u{20DD}",
            "a\u{489}\u{489}\u{489}",
            "г\u{489}\u{489}\u{489}\u{489}\u{489}",
            "1\u{301}\u{301}\u{301}",
            "か\u{3099}\u{3099}\u{301}\u{301}\u{301}",
            &thai,
            &devanagari,
            &foreign,
            &in_between,
            &format!("z{}", "\u{337}".repeat(28)),
            &format!("a{}", "\u{302E}".repeat(MAX_MARKS + 1)),
        ] {
            assert!(has_too_many_marks(name), "{name:?}");
        }
        assert!(!has_too_many_marks(&"a\u{301}\u{302}".repeat(16)));
    }
}
