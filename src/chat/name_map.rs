//! A map from names to values, in which names that are the same are one key.

use std::collections::HashMap;

use super::name_key::{Form, NameKey};

/// Holds a name in both of its forms. Looking up a key costs two hash lookups of an integer, whatever the key.
#[derive(Clone)]
pub struct NameMap<V> {
    by_spelling: HashMap<Form, V>,
    by_skeleton: HashMap<Form, V>,
}

impl<V> Default for NameMap<V> {
    fn default() -> Self {
        Self { by_spelling: HashMap::new(), by_skeleton: HashMap::new() }
    }
}

impl<V: Copy + PartialEq> NameMap<V> {
    /// The values of all names that are the same as this one: of its spelling, and of its skeleton if that is another.
    pub fn all(&self, name: &NameKey) -> impl Iterator<Item = V> {
        let [spelling, skeleton] = name.forms();
        let by_spelling = self.by_spelling.get(spelling).copied();
        let by_skeleton = self.by_skeleton.get(skeleton).copied();
        by_spelling.into_iter().chain(by_skeleton.filter(|value| by_spelling != Some(*value)))
    }
}

impl<V: Copy> NameMap<V> {
    /// The value of this name. If its spelling and its skeleton match different names, the spelling takes precedence.
    pub fn get(&self, name: &NameKey) -> Option<V> {
        let [spelling, skeleton] = name.forms();
        self.by_spelling.get(spelling).or_else(|| self.by_skeleton.get(skeleton)).copied()
    }

    /// Adds a name that is not in the map.
    pub fn insert(&mut self, name: &NameKey, value: V) {
        let [spelling, skeleton] = name.forms();
        self.by_spelling.insert(spelling.clone(), value);
        self.by_skeleton.insert(skeleton.clone(), value);
    }

    /// Removes exactly this name, which is in the map.
    pub fn remove(&mut self, name: &NameKey) {
        let [spelling, skeleton] = name.forms();
        self.by_spelling.remove(spelling);
        self.by_skeleton.remove(skeleton);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_spelling_and_by_its_skeleton() {
        let mut map = NameMap::default();
        map.insert(&NameKey::of("Nick"), 1);
        for name in ["Nick", "NICK", "Νick", "Nісk"] {
            assert_eq!(map.get(&NameKey::of(name)), Some(1), "{name}");
        }
        assert_eq!(map.get(&NameKey::of("Vick")), None);
        map.remove(&NameKey::of("Nick"));
        assert_eq!(map.get(&NameKey::of("Nick")), None);
        assert!(map.by_skeleton.is_empty());
    }

    #[test]
    fn the_spelling_takes_precedence_over_the_skeleton() {
        let mut map = NameMap::default();
        map.insert(&NameKey::of("lan"), 1);
        assert_eq!(map.get(&NameKey::of("Ian")), Some(1));
        map.remove(&NameKey::of("lan"));
        map.insert(&NameKey::of("Lan"), 2);
        map.insert(&NameKey::of("Ian"), 3);
        assert_eq!(map.all(&NameKey::of("lan")).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(map.all(&NameKey::of("Ian")).collect::<Vec<_>>(), [3]);
        assert_eq!(map.get(&NameKey::of("lan")), Some(2));
        assert_eq!(map.get(&NameKey::of("ian")), Some(3));
    }
}
