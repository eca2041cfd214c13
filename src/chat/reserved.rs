//! Which names could be mistaken for `System`, the sender of the server's messages.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::name_key::NameKey;
use super::protocol::SYSTEM;

/// Letters that look like a vertical line, in skeletons and keys: | is a symbol, but these are not.
const VERTICAL_LINES: [char; 5] = ['l', 'ǀ', '丨', 'ㅣ', 'ᅵ'];

/// Whether only look-alikes, marks, punctuation, symbols and spaces distinguish a name from `System`.
pub fn looks_like_system(name: &str) -> bool {
    let system = letters(NameKey::of(SYSTEM).spelling());
    let name: String = name.chars().map(without_enclosure).nfkc().collect();
    // With and without the symbols: `|` is a symbol, and its skeleton is a letter.
    [letters(&name), name].iter().map(|name| NameKey::of(name)).any(|key| {
        [key.spelling(), key.skeleton()].iter().any(|form| {
            let letters = letters(&small_capitals_resolved(form));
            letters == system || letters.trim_matches(VERTICAL_LINES) == system
        })
    })
}

/// Only the letters and digits.
fn letters(text: &str) -> String {
    use GeneralCategoryGroup::{Letter, Number};
    let is_letter = |&character: &char| {
        matches!(character.general_category_group(), Letter | Number)
            && character.general_category() != GeneralCategory::ModifierLetter
    };
    text.nfd().filter(is_letter).collect()
}

/// Replaces the small capitals of `System`, which UTS 39 treats as separate letters, confusable with Cyrillic т and м.
fn small_capitals_resolved(text: &str) -> String {
    // In skeletons, m is rn, and its small capital is ʍ.
    text.replace('ᴛ', "t").replace('ᴇ', "e").replace('ʍ', "rn")
}

/// Replaces a negative circled or squared letter or a regional indicator, which NFKC keeps, with its letter.
fn without_enclosure(character: char) -> char {
    let first = match character {
        '\u{1F150}'..='\u{1F169}' => 0x1F150,
        '\u{1F170}'..='\u{1F189}' => 0x1F170,
        '\u{1F1E6}'..='\u{1F1FF}' => 0x1F1E6,
        _ => return character,
    };
    (b'a'..=b'z').nth((u32::from(character) - first) as usize).map_or(character, char::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readers could not distinguish these from `System`.
    #[test]
    fn names_that_read_as_system_are_recognized() {
        for name in [
            "System",
            "ǀSystemǀ",
            "丨System丨",
            "ㅣSystemㅣ",
            "sYSTEM",
            "Ｓystem",
            "ＳＹＳＴＥＭ",
            "Sуstem",
            "Ѕystem",
            "ЅУЅТЕМ",
            "ѕуѕтем",
            "Տystem",
            "ꓢꓬꓢꓔꓰꓟ",
            "SΥSΤΕΜ",
            "Sγsτem",
            "Ꮪystem",
            "ꜱʏꜱᴛᴇᴍ",
            "Sʏsᴛᴇᴍ",
            "ⓢⓨⓢⓣⓔⓜ",
            "🅂🅈🅂🅃🄴🄼",
            "🅢🅨🅢🅣🅔🅜",
            "🆂🆈🆂🆃🅴🅼",
            "🇸🇾🇸🇹🇪🇲",
            "𝐒𝐲𝐬𝐭𝐞𝐦",
            "ˢʸˢᵗᵉᵐ",
            "Systern",
            "System.",
            "S.y.s.t.e.m",
            "S y s t e m",
            "sy stem",
            "Sy-stem",
            "Sýstém",
            "Sy\u{335}stem",
            "Systemʼ",
            "Systemˌ",
            "[System]",
            "System|",
            "|System|",
            "★ System ★",
            "System✓",
            "«Ѕуѕтем»",
        ] {
            assert!(looks_like_system(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "Systems",
            "System2",
            "Sys",
            "Stem",
            "5ystem",
            "Sister",
            "Ecosystem",
            "The System",
            "Система",
            ".",
            "m",
        ] {
            assert!(!looks_like_system(name), "{name}");
        }
    }
}
