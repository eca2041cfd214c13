//! How a node becomes part of the chat: it joins the one on the engine or, if there is none, fills the engine.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use log::{info, warn};
use thiserror::Error;

use super::backoff::Backoff;
use super::engine::{Engine, EngineError, Link, text};
use super::entry::{ENGINE, node_number};
use super::history::History;
use super::log::SharedLog;
use super::node::{Event, Formats, Joined, NodeSettings, OwnState, State};
use super::position::{Origin, Position};
use super::reader::Reader;
use super::scripts::Script;
use super::snapshot::{Applied, Snapshot};
use super::status::Status;
use super::tuning::{IO_TIMEOUT, LOG_INTERVAL, Tuning};
use super::writer::{Offer, Writer};
use crate::chat::NodeNumber;
use crate::ops::random::random;

/// Where the name of this machine is, on Linux.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";
/// The most characters of it in the name of a node.
const MAX_HOST_NAME_CHARS: usize = 48;

/// Why this server cannot be part of the chat.
#[derive(Debug, Error)]
pub enum ClusterError {
    #[error("The Redis or Valkey server at {address} cannot be used: {reason}")]
    Refused { address: String, reason: String },
    #[error(
        "The chat at {address} uses format {format}, and this program knows {oldest} to {newest}: use the version of \
         the other servers, or the one before or after it"
    )]
    Format { address: String, format: u32, oldest: u32, newest: u32 },
    #[error("The server cannot be started: {0}")]
    System(#[from] std::io::Error),
}

/// What the threads of a node share, and what does not change.
pub struct Node {
    pub link: Link,
    /// Identifies this start of the server while an engine is filled.
    claimant: String,
    name: String,
    pub formats: Formats,
    pub tuning: Tuning,
    pub status: Arc<Status>,
    pub events: Box<dyn Fn(Event) + Send + Sync>,
}

/// A node's place in a chat.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Of the engine, when the chat there was last known to have all that this node has applied.
    pub run: String,
    pub node: NodeNumber,
    pub epoch: String,
    pub mark: u64,
    /// The last id when it joined.
    pub log_id: u64,
    pub snapshot_id: u64,
    /// The newest that all nodes know.
    pub format: u32,
}

/// The place that a node had in the chat.
#[derive(Default)]
pub struct Past {
    /// [`ENGINE`]: it had none.
    pub node: NodeNumber,
    /// Empty: it must get another number.
    pub epoch: String,
    /// The last of its sequence numbers that it will not use again.
    pub done: u64,
    /// The newest that all nodes know; `None`: this node does not know others.
    pub format: Option<u32>,
}

/// The chat's state after joining.
pub enum Found {
    /// What this node has.
    Own,
    Loaded(Snapshot),
}

/// How a node continues after the engine may have lost the chat.
pub enum Continuation {
    /// This run of the engine has all that this node has applied, and the log ends with this id or a later one.
    Unchanged {
        run: String,
        log_id: u64,
    },
    /// This node must read the log to this id first.
    Behind {
        log_id: u64,
    },
    Joined(Membership, Found),
}

enum Decision {
    /// The engine was filled by this node, with this epoch.
    Filled(String),
    /// The engine has all that this node has applied.
    Complete,
    /// The log has more than this node has applied, and this node is to fill the engine with it.
    Behind,
    /// There is another chat, or the log has been continued without this node's last entries.
    Other,
}

/// Joins the chat on the engine, and starts the threads that read and write its log. If there is no chat, the node with
/// the newest state fills the engine. If the engine cannot be reached, this waits for it.
///
/// `own_state`: the state that this node could fill the engine with. `events` is called by both threads, and may block.
///
/// # Errors
/// Waiting would not help: see [`ClusterError`].
pub fn join(
    settings: &NodeSettings,
    own_state: impl FnOnce() -> OwnState,
    events: impl Fn(Event) + Send + Sync + 'static,
) -> Result<(Joined, SharedLog, History), ClusterError> {
    #[cfg(feature = "aws-lc")]
    crate::tls::install_default_provider();
    let address = settings.cluster.url.address();
    let refused = |error| refused(address, settings.formats, &error);
    let name = match &settings.cluster.node {
        Some(name) => name.as_str().into(),
        None => default_name()?,
    };
    let node = Arc::new(Node {
        link: Link::new(&settings.cluster).map_err(refused)?,
        claimant: random_text()?,
        status: Arc::new(Status::new(&name)),
        name,
        formats: settings.formats,
        tuning: settings.tuning,
        events: Box::new(events),
    });
    let mut own_state = Some(own_state);
    let mut offer = None;
    let (mut problems, mut backoff) = (Problems::new(address), Backoff::default());
    let (membership, found, is_persistent) = loop {
        let own = || {
            if let Some(own_state) = own_state.take() {
                offer = Some(first_offer(own_state()));
            }
            offer.clone()
        };
        let entered = node.link.connect(IO_TIMEOUT).and_then(|mut engine| {
            let (membership, found) = enter(&mut engine, &node, own)?;
            Ok((membership, found, engine.info.is_persistent))
        });
        match entered {
            Ok(entered) => break entered,
            Err(error @ (EngineError::Refused(_) | EngineError::Format(_) | EngineError::Unreadable)) => {
                return Err(refused(error));
            }
            Err(EngineError::Interrupted) => {}
            Err(error) => {
                problems.report(&format!("Waiting for the chat: {error}"));
                thread::sleep(backoff.failed(random_byte()));
            }
        }
    };
    if !is_persistent {
        warn!(
            "The Redis or Valkey server at {address} loses the chat when it is restarted: set appendonly yes"
        );
    }
    let applied = match &found {
        Found::Own => offer.map(|offer| offer.applied).unwrap_or_default(),
        Found::Loaded(snapshot) => snapshot.applied.clone(),
    };
    let joined = joined(&membership, found, applied.clone());
    node.status.joined(membership.node, membership.log_id, applied.id, membership.snapshot_id);
    info!("Joined the chat at {address} as {} (number {})", node.name, membership.node);

    let (commands, waiting) = unbounded();
    let (updates, history_updates) = unbounded();
    let (to_reader, reader_commands) = unbounded();
    let position = Position::new(membership.mark, applied.id, applied.origin);
    let reader =
        Reader::new(node.clone(), membership.epoch.clone(), position, reader_commands, commands.clone());
    let history = History::new(node.clone(), commands.clone());
    let log = SharedLog::new(commands, updates, node.status.clone(), &joined);
    let writer = Writer::new(node, membership, waiting, history_updates, to_reader);
    thread::Builder::new().name("log reader".into()).spawn(move || reader.run())?;
    thread::Builder::new().name("log writer".into()).spawn(move || writer.run())?;
    Ok((joined, log, history))
}

/// The error for a problem that waiting would not solve.
pub fn refused(address: &str, formats: Formats, error: &EngineError) -> ClusterError {
    let address = address.into();
    match *error {
        EngineError::Format(format) => {
            let Formats { oldest, newest } = formats;
            ClusterError::Format { address, format, oldest, newest }
        }
        _ => ClusterError::Refused { address, reason: error.to_string() },
    }
}

/// What the caller learns of it.
pub fn joined(membership: &Membership, found: Found, applied: Applied) -> Joined {
    Joined {
        node: membership.node,
        epoch: membership.epoch.clone(),
        format: membership.format,
        state: match found {
            Found::Own => None,
            Found::Loaded(snapshot) => Some(State { chat: snapshot.chat }),
        },
        id: applied.id,
        sequence: applied.sequences.get(&membership.node).copied().unwrap_or(0),
        log_id: membership.log_id,
        applied,
    }
}

/// Joins the chat, after filling the engine if it is empty.
fn enter(
    engine: &mut Engine,
    node: &Node,
    mut own: impl FnMut() -> Option<Offer>,
) -> Result<(Membership, Found), EngineError> {
    let past = Past::default();
    let mut filled = None;
    loop {
        match join_chat(engine, node, &past) {
            Ok(membership) => return found(engine, membership, filled.as_ref()),
            Err(EngineError::Empty) => {
                let Some(offer) = own() else { return Err(EngineError::Empty) };
                if let Decision::Filled(epoch) = decide(engine, node, None, &past, &offer)? {
                    filled = Some(epoch);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Continues the chat of `past`, or joins again, after the engine was restarted or has lost it.
pub fn come_back(
    engine: &mut Engine,
    node: &Node,
    past: &Past,
    offer: &Offer,
) -> Result<Continuation, EngineError> {
    let (epoch, log_id) = match engine.chat()? {
        Some((epoch, _, id)) => (Some(epoch), id),
        None => (None, 0),
    };
    let mut filled = None;
    if epoch.as_ref().is_none_or(|epoch| *epoch == past.epoch) {
        match decide(engine, node, epoch.as_deref(), past, offer)? {
            Decision::Filled(epoch) => filled = Some(epoch),
            Decision::Complete => {
                return Ok(Continuation::Unchanged { run: engine.info.run.clone(), log_id });
            }
            Decision::Behind => return Ok(Continuation::Behind { log_id }),
            Decision::Other => {}
        }
    }
    let membership = join_chat(engine, node, past)?;
    let (membership, found) = found(engine, membership, filled.as_ref())?;
    Ok(Continuation::Joined(membership, found))
}

/// The state to continue with. `filled`: the epoch with which this node has filled the engine.
fn found(
    engine: &mut Engine,
    membership: Membership,
    filled: Option<&String>,
) -> Result<(Membership, Found), EngineError> {
    if filled == Some(&membership.epoch) {
        return Ok((membership, Found::Own));
    }
    let snapshot = load(engine, &membership.epoch)?;
    Ok((membership, Found::Loaded(snapshot)))
}

/// Adds this node to the chat.
pub fn join_chat(engine: &mut Engine, node: &Node, past: &Past) -> Result<Membership, EngineError> {
    let answer = engine.run(
        Script::Join,
        &[
            node.name.as_bytes(),
            decimal(node.formats.newest.into()).as_bytes(),
            decimal(node.formats.oldest.into()).as_bytes(),
            millis(node.tuning.lease).as_bytes(),
            decimal(past.node.into()).as_bytes(),
            past.epoch.as_bytes(),
            decimal(past.done).as_bytes(),
            engine.info.run.clone().as_bytes(),
        ],
    )?;
    membership(&answer, &engine.info.run).ok_or_else(|| EngineError::malformed("join"))
}

fn membership(answer: &redis::Value, run: &str) -> Option<Membership> {
    use super::engine::number;
    let redis::Value::Array(values) = answer else { return None };
    let [epoch, mark, node, log_id, snapshot_id, format] = values.as_slice() else { return None };
    Some(Membership {
        run: run.into(),
        node: node_number(number(node)?).filter(|node| *node != ENGINE)?,
        epoch: text(epoch)?.into(),
        mark: number(mark)?,
        log_id: number(log_id)?,
        snapshot_id: number(snapshot_id)?,
        format: number(format)?.try_into().ok()?,
    })
}

/// The snapshot of an epoch.
pub fn load(engine: &mut Engine, epoch: &str) -> Result<Snapshot, EngineError> {
    let snapshot = Snapshot::decode(&engine.snapshot()?).ok_or(EngineError::Unreadable)?;
    // The chat has been replaced just now.
    if snapshot.epoch == epoch { Ok(snapshot) } else { Err(EngineError::Epoch) }
}

/// Claims to have this node's state, until it is decided with which node's state the chat continues. `found`: the epoch
/// of the chat on the engine.
fn decide(
    engine: &mut Engine,
    node: &Node,
    found: Option<&str>,
    past: &Past,
    offer: &Offer,
) -> Result<Decision, EngineError> {
    let system = |error: std::io::Error| EngineError::Unavailable(error.to_string());
    let Offer { own, applied } = offer;
    let epoch = random_text().map_err(system)?;
    let mark = u32::from_be_bytes(random().map_err(system)?);
    let origin = applied.origin.unwrap_or(Origin { node: ENGINE, sequence: 0, time: 0 });
    let snapshot = Snapshot::encode(&epoch, applied, &own.chat);
    let claim = [
        engine.info.run.clone(),
        found.unwrap_or("none").to_owned(),
        node.claimant.clone(),
        decimal(past.node.into()),
        own.rank.text(),
        millis(node.tuning.claim),
        decimal(applied.id),
        decimal(origin.node.into()),
        decimal(origin.sequence),
        decimal(applied.time),
    ];
    let mut details = vec![
        epoch.clone(),
        decimal(mark.into()),
        decimal(past.format.unwrap_or(node.formats.newest).into()),
        millis(node.tuning.lease),
        decimal(applied.highest_node.max(past.node).into()),
        past.epoch.clone(),
    ];
    for (&node, &sequence) in &applied.sequences {
        details.extend([decimal(node.into()), decimal(sequence)]);
    }
    let mut has_won = false;
    loop {
        let mut arguments: Vec<&[u8]> = claim.iter().map(String::as_bytes).collect();
        if has_won {
            arguments.push(&snapshot);
            arguments.extend(details.iter().map(String::as_bytes));
        } else {
            arguments.push(b"");
        }
        let answer = engine.run(Script::Restore, &arguments)?;
        match text(&answer) {
            Some("DONE") => {
                let address = node.link.address();
                info!("Filled the Redis or Valkey server at {address} with the chat of this server");
                return Ok(Decision::Filled(epoch));
            }
            Some("OTHER") => return Ok(Decision::Other),
            Some("FINE") => return Ok(Decision::Complete),
            Some("BEHIND") => return Ok(Decision::Behind),
            Some("WIN") => has_won = true,
            Some("WAIT") => {
                has_won = false;
                thread::sleep(node.tuning.claim / 8);
            }
            _ => return Err(EngineError::malformed("restore")),
        }
    }
}

fn first_offer(own: OwnState) -> Offer {
    let applied = Applied { id: own.rank.id(), ..Applied::default() };
    Offer { own, applied }
}

/// Logs problems with the engine: each at once, and then once a minute while it lasts.
pub struct Problems {
    address: String,
    last: Option<(String, Instant)>,
}

impl Problems {
    pub fn new(address: &str) -> Self {
        Self { address: address.into(), last: None }
    }

    pub fn report(&mut self, problem: &str) {
        let is_due = match &self.last {
            Some((last, at)) => last != problem || at.elapsed() >= LOG_INTERVAL,
            None => true,
        };
        if is_due {
            warn!("Redis or Valkey server at {}: {problem}", self.address);
            self.last = Some((problem.into(), Instant::now()));
        }
    }

    pub fn solved(&mut self) {
        self.last = None;
    }
}

pub fn decimal(number: u64) -> String {
    number.to_string()
}

pub fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// For a [`Backoff`]. If there is no random number, nodes may connect at the same moment.
pub fn random_byte() -> u8 {
    random::<1>().map_or(0, |[byte]| byte)
}

/// 16 hexadecimal digits.
fn random_text() -> std::io::Result<String> {
    Ok(format!("{:016x}", u64::from_be_bytes(random()?)))
}

/// The host name and a random suffix.
fn default_name() -> std::io::Result<String> {
    let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
    let host: String = host.trim().chars().filter(is_plain).take(MAX_HOST_NAME_CHARS).collect();
    let host = if host.is_empty() { "node" } else { &host };
    Ok(format!("{host}-{:08x}", u32::from_be_bytes(random()?)))
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    /// With a number that does not fit into the ids of connections, a server once took all connections for its own.
    #[test]
    fn a_node_has_a_number_that_fits() {
        let parse = |node| {
            let numbers = [77, node, 9, 7, 1].map(Value::Int);
            let answer = [Value::BulkString("0f".into())].into_iter().chain(numbers).collect();
            membership(&Value::Array(answer), "run")
        };
        assert_eq!(parse(1).map(|membership| membership.node), NodeNumber::new(1));
        let greatest = i64::from(NodeNumber::MAX);
        assert!(parse(greatest).is_some() && parse(greatest + 1).is_none() && parse(0).is_none());
    }
}
