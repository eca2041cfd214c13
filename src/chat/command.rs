//! The slash commands (docs/protocol.md), from text to [`Command`].

use super::protocol::CommandUsage;

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

/// A command with its arguments. A username in them may contain spaces, so only the room can tell where it ends.
#[derive(Debug, PartialEq)]
pub enum Command<'a> {
    Whisper(&'a str),
    Login(&'a str),
    To(&'a str),
    Help(Option<&'static CommandUsage>),
}

impl<'a> Command<'a> {
    /// # Errors
    /// A message for the user.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        match name {
            "/whisper" => with_arguments(Self::Whisper, rest, &WHISPER),
            "/login" => with_arguments(Self::Login, rest, &LOGIN),
            "/to" => with_arguments(Self::To, rest, &TO),
            "/help" if rest.is_empty() => Ok(Self::Help(None)),
            "/help" => match COMMANDS
                .iter()
                .find(|command| command.name.trim_start_matches('/') == rest.trim_start_matches('/'))
            {
                Some(command) => Ok(Self::Help(Some(command))),
                None => Err(unknown(rest)),
            },
            _ if !name.starts_with('/') => Err("A command begins with a slash: try /help.".into()),
            _ => Err(unknown(name)),
        }
    }
}

fn with_arguments<'a>(
    command: fn(&'a str) -> Command<'a>,
    rest: &'a str,
    about: &CommandUsage,
) -> Result<Command<'a>, String> {
    if rest.is_empty() { Err(usage(about)) } else { Ok(command(rest)) }
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(40).collect();
    format!("Unknown command {name}: /help lists the commands.")
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

/// Every split of a text into leading words, which may be a name, and the rest; the longest name first.
pub fn split_name(text: &str, max_words: usize) -> impl Iterator<Item = (&str, &str)> {
    let ends = text.match_indices(char::is_whitespace).map(|(at, _)| at);
    // Several spaces in a row make one split.
    let ends = ends.filter(move |&at| !text[..at].ends_with(char::is_whitespace));
    let mut ends: Vec<usize> = ends.take(max_words).collect();
    if ends.len() < max_words {
        ends.push(text.len());
    }
    ends.into_iter().rev().map(|at| (&text[..at], text[at..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_parsed_with_their_arguments() {
        for (text, expected) in [
            ("/whisper Bob hi  there ", Command::Whisper("Bob hi  there")),
            ("  /login  two words", Command::Login("two words")),
            ("/to\tBob 5", Command::To("Bob 5")),
            ("/help", Command::Help(None)),
            ("/help whisper", Command::Help(Some(&WHISPER))),
            ("/help  /to ", Command::Help(Some(&TO))),
        ] {
            assert_eq!(Command::parse(text), Ok(expected), "{text}");
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

    #[test]
    fn a_text_is_split_at_every_word() {
        let splits: Vec<_> = split_name("Ann Lee  hi you", 3).collect();
        assert_eq!(splits, [("Ann Lee  hi", "you"), ("Ann Lee", "hi you"), ("Ann", "Lee  hi you")]);
        let splits: Vec<_> = split_name("Ann Lee", 3).collect();
        assert_eq!(splits, [("Ann Lee", ""), ("Ann", "Lee")]);
    }
}
