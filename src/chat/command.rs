//! The slash commands (docs/protocol.md), from text to [`Command`].

use super::protocol::{CommandUsage, shortened};
use super::target::Target;

pub const WHISPER: CommandUsage = CommandUsage {
    name: "/whisper",
    usage: "/whisper [user] [message]",
    about: "Sends a message to one user only.",
};
pub const LOGIN: CommandUsage =
    CommandUsage { name: "/login", usage: "/login [password]", about: "Makes you a moderator." };
pub const TO: CommandUsage = CommandUsage {
    name: "/to",
    usage: "/to [user] [seconds]",
    about: "Times out a user, who can then only read. For moderators.",
};
pub const HELP: CommandUsage =
    CommandUsage { name: "/help", usage: "/help [command]", about: "Lists the commands, or explains one." };
pub const COMMANDS: &[CommandUsage] = &[WHISPER, LOGIN, TO, HELP];

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Whisper(Target),
    /// Its password is not part of it: see [`login_password`].
    Login,
    To(Target),
    Help(Option<&'static CommandUsage>),
}

impl Command {
    /// # Errors
    /// A message for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, arguments) = split(text);
        match name {
            "/help" => help_about(arguments).map(Self::Help),
            "/whisper" => required(arguments, &WHISPER).map(|text| Self::Whisper(Target::parse(text))),
            "/login" => required(arguments, &LOGIN).map(|_| Self::Login),
            "/to" => required(arguments, &TO).map(|text| Self::To(Target::parse(text))),
            _ if !name.starts_with('/') => Err("A command begins with a slash: try /help.".into()),
            _ => Err(unknown(name)),
        }
    }
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
