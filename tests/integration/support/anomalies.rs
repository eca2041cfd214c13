//! A checker like Jepsen's: compares what clients have said, and what they were told, with what they have seen and with
//! the history, and finds what was lost, duplicated or reordered, and names with two owners.
//!
//! Each line is `LABEL NUMBER`, where the label belongs to one client and the numbers ascend.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A public message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: u64,
    pub from: String,
    pub text: String,
}

/// What a client has done and seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What its lines begin with. Its name may differ: another client may have had it before.
    pub label: String,
    /// The lines that it has sent, at least once.
    pub said: Vec<String>,
    /// Those that it was told to have been accepted, and the ids.
    pub acked: Vec<(u64, String)>,
    /// What it has seen. A new view begins where the client was told that something is missing.
    pub views: Vec<Vec<Seen>>,
    /// The close codes of its connections; `None`: without one.
    pub closes: Vec<Option<u16>>,
    /// `system` lines that are neither joins nor leaves.
    pub system: Vec<String>,
    /// Contents of `error`s.
    pub errors: Vec<String>,
    /// The epochs that it was told.
    pub epochs: Vec<String>,
}

/// Something that a client sees, in the order in which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Line(Line),
    Joined(String),
    Left(String),
    List(Vec<String>),
    /// The client was away, and then got all lines that it had missed, but no joins and leaves.
    Resumed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// `by`: the client that was told that the line was accepted, or was there while others saw it.
    Lost {
        text: String,
        by: String,
    },
    /// `by`: where it is twice.
    Duplicated {
        text: String,
        by: String,
    },
    /// `by`: where it has another place than before or elsewhere.
    Reordered {
        text: String,
        by: String,
    },
    TwoOwners {
        name: String,
    },
}

/// All anomalies. `history`: what is kept at the end, all of it, oldest first.
pub fn anomalies(records: &[Record], history: &[Line]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    order("the history", history.iter(), &mut found);
    owners_in(history, &mut found);
    for record in records {
        acknowledged(record, history, &mut found);
        for view in &record.views {
            let lines = || view.iter().filter_map(line);
            order(&record.label, lines(), &mut found);
            completeness(&record.label, lines(), history, &mut found);
            owners_seen(view, &mut found);
        }
    }
    found
}

fn line(seen: &Seen) -> Option<&Line> {
    if let Seen::Line(line) = seen { Some(line) } else { None }
}

/// Ids ascend, no line is there twice, and each client's lines are in the order in which it has said them.
fn order<'a>(by: &str, lines: impl Iterator<Item = &'a Line>, found: &mut Vec<Anomaly>) {
    let (mut texts, mut last_id) = (BTreeSet::new(), None);
    let mut last_numbers: HashMap<&str, usize> = HashMap::new();
    for line in lines {
        let (text, by) = (line.text.clone(), by.to_owned());
        if !texts.insert(&line.text) {
            found.push(Anomaly::Duplicated { text, by });
            continue;
        }
        let (label, number) = parts(&line.text);
        let last_number = last_numbers.insert(label, number);
        if last_id.is_some_and(|last| last >= line.id) || last_number.is_some_and(|last| last >= number) {
            found.push(Anomaly::Reordered { text, by });
        }
        last_id = Some(line.id);
    }
}

/// What was acknowledged is kept, under the id that the client was told.
fn acknowledged(record: &Record, history: &[Line], found: &mut Vec<Anomaly>) {
    let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, text) in &record.acked {
        let by = record.label.clone();
        match ids.insert(text, *id) {
            Some(earlier) if earlier != *id => found.push(Anomaly::Duplicated { text: text.clone(), by }),
            _ => match history.iter().find(|line| line.text == *text) {
                None => found.push(Anomaly::Lost { text: text.clone(), by }),
                Some(kept) if kept.id != *id => {
                    found.push(Anomaly::Reordered { text: text.clone(), by });
                }
                Some(_) => {}
            },
        }
    }
}

/// A view is the part of the history from its first to its last line.
fn completeness<'a>(
    by: &str,
    lines: impl Iterator<Item = &'a Line>,
    history: &[Line],
    found: &mut Vec<Anomaly>,
) {
    let view: BTreeMap<u64, &Line> = lines.map(|line| (line.id, line)).collect();
    let kept: BTreeMap<u64, &Line> = history.iter().map(|line| (line.id, line)).collect();
    let (Some((&first, _)), Some((&last, _))) = (view.first_key_value(), view.last_key_value()) else {
        return;
    };
    for (id, line) in kept.range(first..=last) {
        if view.get(id).is_none_or(|seen| seen != line) {
            found.push(Anomaly::Lost { text: line.text.clone(), by: by.into() });
        }
    }
    for (id, line) in &view {
        if kept.get(id).is_none_or(|kept| kept != line) {
            found.push(Anomaly::Reordered { text: line.text.clone(), by: by.into() });
        }
    }
}

/// Once a second client speaks under a name, the first does not.
fn owners_in(history: &[Line], found: &mut Vec<Anomaly>) {
    let mut owners: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in history {
        let (label, _) = parts(&line.text);
        let labels = owners.entry(&line.from).or_default();
        if labels.last() == Some(&label) {
            continue;
        }
        if labels.contains(&label) {
            found.push(Anomaly::TwoOwners { name: line.from.clone() });
        }
        labels.push(label);
    }
}

/// Nobody joins under a name that is present, and no name is in the list twice.
fn owners_seen(view: &[Seen], found: &mut Vec<Anomaly>) {
    let mut present = BTreeSet::new();
    for seen in view {
        let twice = match seen {
            Seen::Joined(name) => (!present.insert(name)).then_some(name),
            Seen::List(names) => {
                let mut unique = BTreeSet::new();
                names.iter().find(|&name| !unique.insert(name))
            }
            Seen::Left(name) => {
                present.remove(name);
                None
            }
            Seen::Resumed => {
                present.clear();
                None
            }
            Seen::Line(_) => None,
        };
        if let Some(name) = twice {
            found.push(Anomaly::TwoOwners { name: name.clone() });
        }
    }
}

fn parts(text: &str) -> (&str, usize) {
    let parsed = text.rsplit_once(' ').and_then(|(label, number)| Some((label, number.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("{text:?} is not a line of a recording client"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: u64, text: &str) -> Line {
        Line { id, from: parts(text).0.into(), text: text.into() }
    }

    fn history() -> Vec<Line> {
        vec![said(2, "Ann 0"), said(3, "Bob 0"), said(5, "Ann 1"), said(8, "Bob 1"), said(9, "Ann 2")]
    }

    fn record(label: &str, seen: &[Line]) -> Record {
        let view = seen.iter().cloned().map(Seen::Line).collect();
        Record { label: label.into(), views: vec![view], ..Record::default() }
    }

    fn acking(label: &str, acked: &[(u64, &str)]) -> Record {
        let acked = acked.iter().map(|&(id, text)| (id, text.into())).collect();
        Record { acked, ..record(label, &[]) }
    }

    #[test]
    fn a_good_history_has_no_anomaly() {
        let all = history();
        let ann = Record {
            acked: vec![(2, "Ann 0".into()), (5, "Ann 1".into()), (9, "Ann 2".into())],
            ..record("Ann", &all)
        };
        // Came later, and missed the last line.
        let cid = record("Cid", &all[1..4]);
        assert_eq!(anomalies(&[ann, cid], &all), []);
        assert_eq!(anomalies(&[], &[]), []);
    }

    #[test]
    fn what_was_acknowledged_and_is_not_kept_is_lost() {
        let found = anomalies(&[acking("Ann", &[(2, "Ann 0"), (11, "Ann 3")])], &history());
        assert_eq!(found, [Anomaly::Lost { text: "Ann 3".into(), by: "Ann".into() }]);
    }

    #[test]
    fn what_a_client_misses_between_two_lines_is_lost() {
        let mut seen = history();
        seen.remove(2);
        let found = anomalies(&[record("Cid", &seen)], &history());
        assert_eq!(found, [Anomaly::Lost { text: "Ann 1".into(), by: "Cid".into() }]);
    }

    #[test]
    fn what_is_there_twice_is_duplicated() {
        let mut all = history();
        all.push(said(12, "Ann 2"));
        let duplicated =
            |text: &str, by: &str| vec![Anomaly::Duplicated { text: text.into(), by: by.into() }];
        assert_eq!(anomalies(&[], &all), duplicated("Ann 2", "the history"));
        // One client received a line twice.
        let mut seen = history();
        seen.insert(2, said(3, "Bob 0"));
        assert_eq!(anomalies(&[record("Cid", &seen)], &history()), duplicated("Bob 0", "Cid"));
        // It was told about two ids.
        let found = anomalies(&[acking("Ann", &[(2, "Ann 0"), (4, "Ann 0")])], &history());
        assert_eq!(found, duplicated("Ann 0", "Ann"));
    }

    #[test]
    fn what_has_another_place_is_reordered() {
        let reordered = |text: &str, by: &str| Anomaly::Reordered { text: text.into(), by: by.into() };
        // In the order in which they were said.
        let all = [said(2, "Ann 1"), said(3, "Ann 0")];
        assert_eq!(anomalies(&[], &all), [reordered("Ann 0", "the history")]);
        // Descending ids.
        let all = [said(3, "Ann 0"), said(2, "Bob 0")];
        assert_eq!(anomalies(&[], &all)[0], reordered("Bob 0", "the history"));
        // Two clients saw two lines in different orders.
        let mut seen = history();
        (seen[1], seen[2]) = (said(3, "Ann 1"), said(5, "Bob 0"));
        let found = anomalies(&[record("Cid", &seen)], &history());
        assert!(found.contains(&reordered("Ann 1", "Cid")) && found.contains(&reordered("Bob 0", "Cid")));
        // A client saw a line that is not in the history.
        let mut seen = history();
        seen.insert(3, said(6, "Bob 7"));
        seen.truncate(4);
        assert_eq!(anomalies(&[record("Cid", &seen)], &history()), [reordered("Bob 7", "Cid")]);
        // The ack says another place than the history.
        let found = anomalies(&[acking("Ann", &[(3, "Ann 0")])], &history());
        assert_eq!(found, [reordered("Ann 0", "Ann")]);
    }

    #[test]
    fn a_name_has_one_owner() {
        let owners = [Anomaly::TwoOwners { name: "Zed".into() }];
        let zed = |id, text: &str| Line { id, from: "Zed".into(), text: text.into() };
        let all = [zed(1, "first 0"), zed(2, "second 0"), zed(3, "first 1")];
        assert_eq!(anomalies(&[], &all), owners);
        assert_eq!(anomalies(&[], &[zed(1, "first 0"), zed(2, "first 1"), zed(3, "second 0")]), []);
        let view = |seen: &[Seen]| Record { views: vec![seen.to_vec()], ..Record::default() };
        let (joined, left) = (Seen::Joined("Zed".into()), Seen::Left("Zed".into()));
        assert_eq!(anomalies(&[view(&[joined.clone(), joined.clone()])], &[]), owners);
        assert_eq!(anomalies(&[view(&[joined.clone(), left, joined.clone()])], &[]), []);
        // The leave was missed.
        assert_eq!(anomalies(&[view(&[joined.clone(), Seen::Resumed, joined])], &[]), []);
        let list = Seen::List(vec!["Zed".into(), "Ann".into(), "Zed".into()]);
        assert_eq!(anomalies(&[view(&[list])], &[]), owners);
    }
}
