//! The slash commands (docs/protocol.md), from text to [`Command`].

use serde::{Deserialize, Serialize};

use super::ban_target::{BanTarget, BannedTarget, NamedTarget};
use super::protocol::{CommandUsage, MAX_ID, shortened};
use super::roster::Role;
use super::target::Target;

pub const WHISPER: CommandUsage = CommandUsage {
    name: "/whisper",
    usage: "/whisper [user] [message]",
    about: "Sends a message to one user only.",
    role: Role::Member,
};
pub const LOGIN: CommandUsage = CommandUsage {
    name: "/login",
    usage: "/login [password]",
    about: "Makes you a moderator.",
    role: Role::Member,
};
pub const TO: CommandUsage = CommandUsage {
    name: "/to",
    usage: "/to [user] [seconds]",
    about: "Times out a user, who can then only read. For moderators.",
    role: Role::Moderator,
};
pub const HELP: CommandUsage = CommandUsage {
    name: "/help",
    usage: "/help [command]",
    about: "Lists the commands, or explains one.",
    role: Role::Member,
};
pub const UNTO: CommandUsage = CommandUsage {
    name: "/unto",
    usage: "/unto [user]",
    about: "Ends a time-out. For moderators.",
    role: Role::Moderator,
};
pub const KICK: CommandUsage = CommandUsage {
    name: "/kick",
    usage: "/kick [user] [reason]",
    about: "Removes a user, who may come back. For moderators.",
    role: Role::Moderator,
};
pub const BAN: CommandUsage = CommandUsage {
    name: "/ban",
    usage: "/ban [user, address or network] [duration] [reason]",
    about: "Removes a user and keeps it out, for a time such as 2h or forever. For moderators.",
    role: Role::Moderator,
};
pub const UNBAN: CommandUsage = CommandUsage {
    name: "/unban",
    usage: "/unban [user, address or network]",
    about: "Ends a ban. For moderators.",
    role: Role::Moderator,
};
pub const BANS: CommandUsage = CommandUsage {
    name: "/bans",
    usage: "/bans",
    about: "Lists the bans. For moderators.",
    role: Role::Moderator,
};
pub const INFO: CommandUsage = CommandUsage {
    name: "/info",
    usage: "/info [user]",
    about: "Shows a user's address, role and bans. For moderators.",
    role: Role::Moderator,
};
pub const DELETE: CommandUsage = CommandUsage {
    name: "/delete",
    usage: "/delete [id]",
    about: "Deletes a message: your own, or as a moderator anyone's.",
    role: Role::Member,
};
pub const COMMANDS: &[CommandUsage] = &[WHISPER, LOGIN, TO, HELP, UNTO, KICK, BAN, UNBAN, BANS, INFO, DELETE];

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Whisper(Target),
    /// Its password is not part of it: see [`login_password`].
    Login,
    To(Target),
    Help(#[serde(with = "usage_name")] Option<&'static CommandUsage>),
    Unto(NamedTarget),
    Kick(Target),
    Ban(BanTarget),
    Unban(BannedTarget),
    Bans,
    Info(NamedTarget),
    Delete(u64),
}

/// A row of the table, by its name.
mod usage_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{COMMANDS, CommandUsage};

    pub fn serialize<S: Serializer>(
        row: &Option<&'static CommandUsage>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        row.map(|row| row.name).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<&'static CommandUsage>, D::Error> {
        let Some(name) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let row = COMMANDS.iter().find(|row| row.name == name);
        row.map(Some).ok_or_else(|| D::Error::custom(format!("there is no command {name:?}")))
    }
}

impl Command {
    /// Its row in the table.
    pub fn row(&self) -> &'static CommandUsage {
        match self {
            Self::Whisper(_) => &WHISPER,
            Self::Login => &LOGIN,
            Self::To(_) => &TO,
            Self::Help(_) => &HELP,
            Self::Unto(_) => &UNTO,
            Self::Kick(_) => &KICK,
            Self::Ban(_) => &BAN,
            Self::Unban(_) => &UNBAN,
            Self::Bans => &BANS,
            Self::Info(_) => &INFO,
            Self::Delete(_) => &DELETE,
        }
    }

    /// # Errors
    /// A message for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, arguments) = split(text);
        match name {
            "/help" => help_about(arguments).map(Self::Help),
            "/whisper" => required(arguments, &WHISPER).map(|text| Self::Whisper(Target::parse(text))),
            "/login" => required(arguments, &LOGIN).map(|_| Self::Login),
            "/to" => required(arguments, &TO).map(|text| Self::To(Target::parse(text))),
            "/unto" => required(arguments, &UNTO).map(|text| Self::Unto(NamedTarget::parse(text))),
            "/kick" => required(arguments, &KICK).map(|text| Self::Kick(Target::parse(text))),
            "/ban" => required(arguments, &BAN).and_then(BanTarget::parse).map(Self::Ban),
            "/unban" => required(arguments, &UNBAN).and_then(BannedTarget::parse).map(Self::Unban),
            "/bans" if arguments.is_empty() => Ok(Self::Bans),
            "/bans" => Err(usage(&BANS)),
            "/info" => required(arguments, &INFO).map(|text| Self::Info(NamedTarget::parse(text))),
            "/delete" => message_id(arguments).map(Self::Delete).ok_or_else(|| usage(&DELETE)),
            _ if !name.starts_with('/') => Err("A command begins with a slash: try /help.".into()),
            _ => Err(unknown(name)),
        }
    }
}

fn message_id(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&id| is_number && id <= MAX_ID)
}

/// The argument of `/login`; `None`: the text is another command.
pub fn login_password(text: &str) -> Option<&str> {
    let (name, password) = split(text);
    (name == LOGIN.name).then_some(password)
}

/// A command's name and its arguments.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (name, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (name, arguments.trim_start())
}

fn help_about(name: &str) -> Result<Option<&'static CommandUsage>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    let is_named =
        |command: &&CommandUsage| command.name.trim_start_matches('/') == name.trim_start_matches('/');
    COMMANDS.iter().find(is_named).map(Some).ok_or_else(|| unknown(name))
}

fn required<'a>(arguments: &'a str, command: &CommandUsage) -> Result<&'a str, String> {
    if arguments.is_empty() { Err(usage(command)) } else { Ok(arguments) }
}

fn unknown(name: &str) -> String {
    format!("Unknown command {}: /help lists the commands.", shortened(name))
}

/// The error for wrong arguments.
pub fn usage(command: &CommandUsage) -> String {
    format!("Usage: {}", command.usage)
}

/// The reply to `/help`.
pub fn help(command: Option<&CommandUsage>) -> String {
    match command {
        Some(command) => format!("{} — {}", command.usage, command.about),
        None => {
            let lines = COMMANDS.iter().map(|command| format!("\n{} — {}", command.usage, command.about));
            format!("Commands:{}", lines.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed_with_their_arguments() {
        for (text, expected) in [
            ("/whisper Bob hi  there ", Command::Whisper(Target::parse("Bob hi  there"))),
            ("  /login  two words", Command::Login),
            ("/to\tBob 5", Command::To(Target::parse("Bob 5"))),
            ("/help", Command::Help(None)),
            ("/help whisper", Command::Help(Some(&WHISPER))),
            ("/help  /to ", Command::Help(Some(&TO))),
            ("/unto  Bob Lee ", Command::Unto(NamedTarget::parse("Bob Lee"))),
            ("/kick Bob spam", Command::Kick(Target::parse("Bob spam"))),
            ("/ban 192.0.2.1", Command::Ban(BanTarget::parse("192.0.2.1").unwrap())),
            ("/unban 192.0.2.1", Command::Unban(BannedTarget::parse("192.0.2.1").unwrap())),
            ("/bans", Command::Bans),
            ("/info Bob Lee", Command::Info(NamedTarget::parse("Bob Lee"))),
            ("/delete 9007199254740991", Command::Delete(MAX_ID)),
        ] {
            assert_eq!(Command::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn the_password_of_login_is_its_whole_argument() {
        assert_eq!(login_password("  /login  two  words "), Some("two  words"));
        assert_eq!(login_password("/login"), Some(""));
        for text in ["/logins x", "/LOGIN x", "/to x", "x /login y"] {
            assert_eq!(login_password(text), None, "{text}");
        }
    }

    #[test]
    fn errors_say_what_to_type() {
        for (text, expected) in [
            ("/whisper", "Usage: /whisper [user] [message]"),
            ("/login  ", "Usage: /login [password]"),
            ("/to", "Usage: /to [user] [seconds]"),
            ("/unto", "Usage: /unto [user]"),
            ("/kick", "Usage: /kick [user] [reason]"),
            ("/ban", "Usage: /ban [user, address or network] [duration] [reason]"),
            ("/unban ", "Usage: /unban [user, address or network]"),
            ("/bans all", "Usage: /bans"),
            ("/info", "Usage: /info [user]"),
            ("/delete", "Usage: /delete [id]"),
            ("/delete +1", "Usage: /delete [id]"),
            ("/delete 1 2", "Usage: /delete [id]"),
            ("/delete 9007199254740992", "Usage: /delete [id]"),
            ("/dance now", "Unknown command /dance: /help lists the commands."),
            ("/help dance", "Unknown command dance: /help lists the commands."),
            ("/", "Unknown command /: /help lists the commands."),
            ("/WHISPER a b", "Unknown command /WHISPER: /help lists the commands."),
            ("whisper a b", "A command begins with a slash: try /help."),
        ] {
            assert_eq!(Command::parse(text), Err(expected.to_owned()), "{text}");
        }
    }
}
