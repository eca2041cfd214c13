//! The bans: by name, for all names that count as the same, and by network.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::acts::Ban;
use super::duration;
use super::name_key::NameKey;
use super::name_map::NameMap;
use super::username::Username;
use crate::limits::Network;
use crate::ops::clock::readable_utc;

/// How many bans there may be.
pub const MAX_BANS: usize = 10_000;
/// The longest reason of a ban or a kick, in bytes.
pub const MAX_REASON_BYTES: usize = 500;
/// The longest reason in a close frame, in bytes (RFC 6455, section 5.5).
const MAX_CLOSE_REASON_BYTES: usize = 123;

/// The table of bans. Looking up a name costs two hash lookups, and looking up an address one for each prefix length
/// among the bans, however many bans there are.
#[derive(Clone, Default)]
pub struct Bans {
    /// By id: the oldest first.
    by_id: BTreeMap<u64, Arc<Ban>>,
    by_name: NameMap<u64>,
    by_network: HashMap<IpNet, u64>,
    /// How many banned networks there are of each kind and prefix length.
    prefixes: BTreeMap<(Family, u8), usize>,
    /// When bans end, in milliseconds since 1970, with their ids.
    by_end: BTreeSet<(u64, u64)>,
    protected: Protected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// The networks that no ban affects: loopback and the trusted proxies.
#[derive(Clone, Default)]
pub struct Protected {
    proxies: Arc<[IpNet]>,
}

impl Protected {
    pub fn new(proxies: Vec<IpNet>) -> Self {
        Self { proxies: proxies.into() }
    }

    pub fn proxies(&self) -> &[IpNet] {
        &self.proxies
    }

    /// Whether a network has addresses in common with loopback or with a trusted proxy.
    pub fn overlaps(&self, network: IpNet) -> bool {
        let loopback: [IpNet; 2] = [
            Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Ipv6Net::from(Ipv6Addr::LOCALHOST).into(),
        ];
        let mut protected = loopback.iter().chain(self.proxies.iter());
        protected.any(|other| network.contains(&other.network()) || other.contains(&network.network()))
    }
}

impl Bans {
    pub fn new(protected: Protected) -> Self {
        Self { protected, ..Self::default() }
    }

    pub fn protected(&self) -> &Protected {
        &self.protected
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Ban>> {
        self.by_id.values().rev()
    }

    /// In the order of their ids.
    pub fn by_id(&self) -> impl Iterator<Item = &Arc<Ban>> {
        self.by_id.values()
    }

    /// Adds a ban. Returns the earlier ones that it replaces, in whole or in part, each with what is left of it.
    pub fn add(&mut self, ban: Arc<Ban>) -> Vec<(Arc<Ban>, Option<Arc<Ban>>)> {
        let earlier: Vec<Arc<Ban>> =
            self.replaced_by(&ban).into_iter().filter_map(|id| self.remove(id)).collect();
        let replaced: Vec<_> = earlier
            .into_iter()
            .map(|earlier| {
                let rest = earlier.without(&ban).filter(|rest| rest.id != ban.id).map(Arc::new);
                (earlier, rest)
            })
            .collect();
        replaced.iter().filter_map(|(_, rest)| rest.clone()).for_each(|rest| self.insert(rest));
        self.insert(ban);
        replaced
    }

    /// Adds a ban that replaces no other.
    pub fn insert(&mut self, ban: Arc<Ban>) {
        if let Some(name) = &ban.name {
            self.by_name.insert(name.key(), ban.id);
        }
        if let Some(network) = ban.network {
            self.by_network.insert(network, ban.id);
            *self.prefixes.entry(kind(network)).or_default() += 1;
        }
        self.by_end.extend(ban.until.map(|until| (until, ban.id)));
        self.by_id.insert(ban.id, ban);
    }

    /// The ids of the bans of the same name or the same network.
    fn replaced_by(&self, ban: &Ban) -> Vec<u64> {
        let by_name = ban.name.iter().flat_map(|name| self.by_name.all(name.key()));
        let by_network = ban.network.iter().filter_map(|network| self.by_network.get(network).copied());
        let ids: BTreeSet<u64> =
            by_name.chain(by_network).chain(self.get(ban.id).map(|ban| ban.id)).collect();
        ids.into_iter().collect()
    }

    /// Whether one ban less is left once this one is added.
    pub fn replaces_one(&self, ban: &Ban) -> bool {
        let earlier = self.replaced_by(ban).into_iter().filter_map(|id| self.get(id));
        earlier.into_iter().any(|earlier| earlier.without(ban).is_none())
    }

    pub fn get(&self, id: u64) -> Option<&Arc<Ban>> {
        self.by_id.get(&id)
    }

    pub fn remove(&mut self, id: u64) -> Option<Arc<Ban>> {
        let ban = self.by_id.remove(&id)?;
        if let Some(name) = &ban.name {
            self.by_name.remove(name.key());
        }
        if let Some(network) = ban.network {
            self.by_network.remove(&network);
            if let Some(count) = self.prefixes.get_mut(&kind(network)) {
                *count -= 1;
                if *count == 0 {
                    self.prefixes.remove(&kind(network));
                }
            }
        }
        if let Some(until) = ban.until {
            self.by_end.remove(&(until, id));
        }
        Some(ban)
    }

    /// Removes a ban that has ended, if there is one.
    pub fn pop_ended(&mut self, unix_millis: u64) -> Option<Arc<Ban>> {
        let &(_, id) = self.by_end.first().filter(|(until, _)| *until <= unix_millis)?;
        self.remove(id)
    }

    /// The bans of a name and of those that count as the same: at most two.
    pub fn of_name(&self, name: &NameKey) -> impl Iterator<Item = &Arc<Ban>> {
        self.by_name.all(name).filter_map(|id| self.get(id))
    }

    /// The bans of the networks that an address is in. Loopback and trusted proxies are in none of them, even if they
    /// became proxies after the ban.
    pub fn of_address(&self, address: Network) -> impl Iterator<Item = &Arc<Ban>> {
        let address = IpNet::from(address);
        let (family, _) = kind(address);
        let prefixes = self.prefixes.range((family, 0)..=(family, u8::MAX));
        let networks = prefixes.filter_map(move |(&(_, prefix), _)| within(address, prefix));
        let bans = networks.filter_map(|network| self.by_network.get(&network));
        bans.filter(move |_| !self.protected.overlaps(address)).filter_map(|&id| self.get(id))
    }

    /// The ban of exactly this network.
    pub fn of_network(&self, network: IpNet) -> Option<&Arc<Ban>> {
        self.get(*self.by_network.get(&network)?)
    }

    /// Of the bans that apply to an address, and to a name if one is given, the one that ends last. `unix_millis`:
    /// bans that have ended by then do not apply.
    pub fn applying(&self, name: Option<&NameKey>, address: Network, unix_millis: u64) -> Option<&Arc<Ban>> {
        let by_name = name.into_iter().flat_map(|name| self.of_name(name));
        let bans = by_name.chain(self.of_address(address));
        let applying = bans.filter(|ban| ban.until.is_none_or(|until| unix_millis < until));
        applying.max_by_key(|ban| ban.until.unwrap_or(u64::MAX))
    }
}

/// The network of this prefix length that contains another one; `None`: that one is wider.
fn within(network: IpNet, prefix: u8) -> Option<IpNet> {
    let wider = |address: IpAddr| IpNet::new(address, prefix).ok().map(|network| network.trunc());
    (prefix <= network.prefix_len()).then(|| wider(network.addr())).flatten()
}

fn kind(network: IpNet) -> (Family, u8) {
    let family = if network.addr().is_ipv4() { Family::V4 } else { Family::V6 };
    (family, network.prefix_len())
}

impl Ban {
    /// What a client that is banned is told.
    pub fn notice(&self) -> String {
        let until = self.until.map(|until| format!(" until {}", readable_utc(until))).unwrap_or_default();
        format!("You are banned{until}{}", reason_after(&self.reason))
    }

    /// What is left of this ban without the name and the network of another one; `None`: nothing.
    pub fn without(&self, other: &Self) -> Option<Self> {
        let is_other = |name: &Username| other.name.as_ref().is_some_and(|it| it.key().is_same(name.key()));
        let name = self.name.clone().filter(|name| !is_other(name));
        let network = self.network.filter(|network| other.network != Some(*network));
        (name.is_some() || network.is_some()).then(|| Self { name, network, ..self.clone() })
    }

    /// The reason for the close frame.
    pub fn close_reason(&self) -> String {
        close_reason(&self.reason, "banned")
    }

    /// Who or what is banned, for moderators.
    pub fn subject(&self) -> String {
        match (&self.name, self.network.map(network_text)) {
            (Some(name), Some(network)) => format!("{} and {network}", name.shown()),
            (Some(name), None) => name.shown().to_string(),
            (None, network) => network.unwrap_or_default(),
        }
    }

    /// For how long, as in ` for 2 h`; empty: forever.
    pub fn for_duration(&self) -> String {
        let seconds = self.until.map(|until| until.saturating_sub(self.since) / 1000);
        seconds.map(|seconds| format!(" for {}", duration::shown(seconds))).unwrap_or_default()
    }

    /// Whether it applies to a member with this name and address.
    pub fn applies_to(&self, name: &NameKey, address: Network) -> bool {
        let by_name = self.name.as_ref().is_some_and(|banned| banned.key().is_same(name));
        by_name || self.network.is_some_and(|banned| banned.contains(&IpNet::from(address)))
    }
}

/// The end of a sentence: `: REASON`, or a full stop.
pub fn reason_after(reason: &str) -> String {
    if reason.is_empty() { ".".into() } else { format!(": {reason}") }
}

/// A reason as it fits into a close frame. `default`: if none was given.
pub fn close_reason(reason: &str, default: &str) -> String {
    let reason = if reason.is_empty() { default } else { reason };
    let ends = reason.char_indices().map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|&end| end <= MAX_CLOSE_REASON_BYTES).last().unwrap_or(0);
    reason[..end].to_owned()
}

/// A single address without its prefix length. All of an IPv6 /64 counts as one address, and is written as a network.
pub fn network_text(network: IpNet) -> String {
    match network {
        IpNet::V4(network) if network.prefix_len() == 32 => network.addr().to_string(),
        network => network.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ban(id: u64, name: Option<&str>, network: Option<&str>, until: Option<u64>) -> Arc<Ban> {
        let name = name.map(|name| Username::parse(name).unwrap());
        let network = network.map(|network| network.parse().unwrap());
        Ban { id, name, network, by: "Ann".into(), since: 0, until, reason: String::new() }.into()
    }

    fn address(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn ids<'a>(bans: impl Iterator<Item = &'a Arc<Ban>>) -> Vec<u64> {
        bans.map(|ban| ban.id).collect()
    }

    #[test]
    fn a_ban_applies_to_names_that_count_as_the_same() {
        let mut bans = Bans::default();
        bans.add(ban(1, Some("Nick"), None, None));
        for name in ["nick", "Ｎｉｃｋ", "Νick", "Nісk"] {
            assert_eq!(ids(bans.of_name(&NameKey::of(name))), [1], "{name}");
        }
        assert_eq!(ids(bans.of_name(&NameKey::of("Vick"))), [0; 0]);
        // One name can be the same as two that differ.
        bans.add(ban(2, Some("Ian"), None, None));
        bans.add(ban(3, Some("Lan"), None, None));
        assert_eq!(ids(bans.of_name(&NameKey::of("lan"))), [3, 2]);
        bans.add(ban(4, Some("lan"), None, None));
        assert_eq!(ids(bans.iter()), [4, 1], "it replaces both");
    }

    /// A short ban of an address once ended the ban of the name that it was set with.
    #[test]
    fn a_ban_replaces_only_what_it_bans_itself() {
        let mut bans = Bans::default();
        bans.add(ban(1, Some("Bob"), Some("192.0.2.1/32"), None));
        let replaced = bans.add(ban(2, None, Some("192.0.2.1/32"), Some(5)));
        let rest = ban(1, Some("Bob"), None, None);
        assert_eq!(replaced, [(ban(1, Some("Bob"), Some("192.0.2.1/32"), None), Some(rest.clone()))]);
        assert_eq!(bans.pop_ended(5).map(|ban| ban.id), Some(2));
        assert_eq!(bans.iter().collect::<Vec<_>>(), [&rest]);
        assert_eq!(bans.add(ban(3, Some("bob"), None, Some(9))), [(rest, None)]);
        assert_eq!(ids(bans.iter()), [3]);
    }

    #[test]
    fn a_ban_applies_to_the_addresses_of_its_network() {
        let mut bans = Bans::default();
        for (id, network) in
            [(1, "192.0.2.7/32"), (2, "192.0.2.0/24"), (3, "2001:db8:0:1::/64"), (4, "2001:db8::/32")]
        {
            bans.add(ban(id, None, Some(network), None));
        }
        for (text, expected) in [
            ("192.0.2.7", vec![2, 1]),
            ("::ffff:192.0.2.7", vec![2, 1]),
            ("192.0.2.8", vec![2]),
            ("192.0.3.7", vec![]),
            ("2001:db8:0:1:ffff::9", vec![4, 3]),
            ("2001:db8:0:2::1", vec![4]),
            ("2001:db9::1", vec![]),
            ("::", vec![]),
        ] {
            assert_eq!(ids(bans.of_address(address(text))), expected, "{text}");
        }
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(bans.of_network(net("192.0.2.0/24")).map(|ban| ban.id), Some(2));
        assert!(bans.of_network(net("192.0.2.0/25")).is_none());
    }

    #[test]
    fn loopback_and_proxies_are_never_banned() {
        let proxies = ["10.0.0.5/32", "2001:db8::5/128"].map(|net| net.parse().unwrap()).to_vec();
        let protected = Protected::new(proxies);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for text in ["127.0.0.1/32", "127.9.0.0/16", "::/64", "10.0.0.5/32", "10.0.0.0/16", "2001:db8::/64"] {
            assert!(protected.overlaps(net(text)), "{text}");
        }
        for text in ["10.0.0.4/32", "126.255.0.0/16", "128.0.0.0/16", "2001:db8:0:1::/64"] {
            assert!(!protected.overlaps(net(text)), "{text}");
        }
        let mut bans = Bans::new(protected);
        // Stored before this became a proxy.
        bans.add(ban(1, None, Some("10.0.0.0/24"), None));
        bans.add(ban(2, None, Some("10.0.0.5/32"), None));
        assert_eq!(ids(bans.of_address(address("10.0.0.5"))), [0; 0]);
        assert_eq!(ids(bans.of_address(address("10.0.0.6"))), [1]);
    }

    #[test]
    fn bans_end_by_the_wall_clock() {
        let mut bans = Bans::default();
        bans.add(ban(1, Some("Bob"), Some("192.0.2.1/32"), Some(1000)));
        bans.add(ban(2, None, Some("192.0.2.0/24"), Some(3000)));
        bans.add(ban(3, Some("Cid"), None, None));
        let applying = |bans: &Bans, name, now| {
            bans.applying(Some(&NameKey::of(name)), address("192.0.2.1"), now).map(|ban| ban.id)
        };
        assert_eq!(applying(&bans, "bob", 0), Some(2), "the one that ends last");
        assert_eq!(applying(&bans, "cid", 0), Some(3));
        assert_eq!(applying(&bans, "bob", 2999), Some(2));
        assert_eq!(applying(&bans, "bob", 3000), None);
        assert_eq!(bans.pop_ended(999), None);
        assert_eq!(bans.pop_ended(1000).map(|ban| ban.id), Some(1));
        assert_eq!(bans.pop_ended(1000), None);
        assert_eq!(bans.pop_ended(u64::MAX).map(|ban| ban.id), Some(2));
        assert_eq!((bans.pop_ended(u64::MAX), bans.len()), (None, 1));
    }

    #[test]
    fn a_close_reason_fits_into_its_frame() {
        assert_eq!(close_reason("", "banned"), "banned");
        assert_eq!(close_reason("spam", "banned"), "spam");
        let long = "ä".repeat(100);
        assert_eq!(close_reason(&long, "").len(), MAX_CLOSE_REASON_BYTES - 1, "cut at a character");
    }

    #[test]
    fn looking_up_an_address_does_not_depend_on_the_number_of_bans() {
        let mut bans = Bans::default();
        for id in 0..MAX_BANS as u64 {
            let address = Ipv4Addr::from_bits(0x0A00_0000 + id as u32);
            bans.add(ban(id, Some(&format!("name {id}")), Some(&format!("{address}/32")), None));
        }
        assert_eq!(bans.prefixes.len(), 1, "one hash lookup");
        let found = (0..100_000).filter(|&number| {
            let address = IpAddr::from(Ipv4Addr::from_bits(0x0A00_0000 + number));
            bans.applying(None, address.into(), 0).is_some()
        });
        assert_eq!(found.count(), MAX_BANS);
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (0..16_u32, 28..=32_u8).prop_map(|(bits, prefix)| {
            Ipv4Net::new_assert(Ipv4Addr::from_bits(0xC000_0200 + bits), prefix).trunc().into()
        });
        let v6 = (0..16_u128, 60..=64_u8).prop_map(|(bits, prefix)| {
            Ipv6Net::new_assert(Ipv6Addr::from_bits((0x2001_0DB8 << 96) + (bits << 64)), prefix)
                .trunc()
                .into()
        });
        prop_oneof![v4, v6]
    }

    fn step() -> impl Strategy<Value = (Option<IpNet>, Option<String>, Option<u64>, bool)> {
        let name = proptest::option::of("[IlL1][aA][nN]");
        (proptest::option::of(network()), name, proptest::option::of(0..20_u64), any::<bool>())
    }

    proptest! {
        /// Compares with a list of bans that is searched from one end to the other.
        #[test]
        fn lookups_find_what_a_search_finds(
            steps in proptest::collection::vec(step(), 0..40),
            addresses in proptest::collection::vec(network(), 10),
            now in 0..20_u64,
        ) {
            let mut bans = Bans::default();
            let mut model: Vec<Arc<Ban>> = Vec::new();
            for (id, (network, name, until, removes)) in (1..).zip(steps) {
                if removes {
                    let removed = bans.remove(id / 2);
                    let at = model.iter().position(|ban| ban.id == id / 2);
                    prop_assert_eq!(removed, at.map(|at| model.remove(at)));
                }
                if name.is_none() && network.is_none() {
                    continue;
                }
                let new = ban(id, name.as_deref(), network.map(|net| net.to_string()).as_deref(), until);
                model = model.iter().filter_map(|old| old.without(&new)).map(Arc::new).collect();
                model.push(new.clone());
                bans.add(new);
            }
            prop_assert_eq!(ids(bans.iter()), model.iter().rev().map(|ban| ban.id).collect::<Vec<_>>());
            for network in addresses {
                let (address, name) = (Network::from(network.addr()), NameKey::of("lan"));
                let mut expected = ids(model.iter().filter(|ban| {
                    ban.network.is_some_and(|banned| banned.contains(&IpNet::from(address)))
                }));
                let mut found = ids(bans.of_address(address));
                found.sort();
                expected.sort();
                prop_assert_eq!(found, expected);
                let applies = |ban: &&Arc<Ban>| {
                    ban.applies_to(&name, address) && ban.until.is_none_or(|until| now < until)
                };
                let last = model.iter().filter(applies).map(|ban| ban.until.unwrap_or(u64::MAX)).max();
                let found = bans.applying(Some(&name), address, now);
                prop_assert_eq!(found.map(|ban| ban.until.unwrap_or(u64::MAX)), last);
            }
            while bans.pop_ended(now).is_some() {}
            model.retain(|ban| ban.until.is_none_or(|until| now < until));
            prop_assert_eq!(bans.len(), model.len());
            let by_network = model.iter().filter(|ban| ban.network.is_some()).count();
            prop_assert_eq!((bans.by_network.len(), bans.prefixes.values().sum::<usize>()), (by_network, by_network));
        }
    }
}
