//! The slash commands of SPEC.md part 2, from text to meaning.

use super::protocol::CommandUsage;

pub const WHISPER: CommandUsage = CommandUsage {
    name: "/whisper",
    usage: "/whisper [user] [message]",
    about: "Says something to one user alone.",
};
pub const LOGIN: CommandUsage =
    CommandUsage { name: "/login", usage: "/login [password]", about: "Makes you a moderator." };
pub const TO: CommandUsage = CommandUsage {
    name: "/to",
    usage: "/to [user] [seconds]",
    about: "Times a user out, who can then only read. For moderators.",
};
pub const HELP: CommandUsage = CommandUsage {
    name: "/help",
    usage: "/help [command]",
    about: "Lists the commands, or tells more of one.",
};
pub const COMMANDS: &[CommandUsage] = &[WHISPER, LOGIN, TO, HELP];

/// A command, with the text that it is given. Where that begins with a user, the room knows how far the name goes.
#[derive(Debug, PartialEq)]
pub enum Command<'a> {
    Whisper(&'a str),
    Login(&'a str),
    To(&'a str),
    Help(Option<&'static CommandUsage>),
}

impl<'a> Command<'a> {
    /// # Errors
    /// What is wrong, in words for who typed it.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        match name {
            "/whisper" => given(Self::Whisper, rest, &WHISPER),
            "/login" => given(Self::Login, rest, &LOGIN),
            "/to" => given(Self::To, rest, &TO),
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

fn given<'a>(
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

/// The usage line, as errors show it.
pub fn usage(command: &CommandUsage) -> String {
    format!("Usage: {}", command.usage)
}

/// What `/help` says.
pub fn help(command: Option<&CommandUsage>) -> String {
    match command {
        Some(command) => format!("{} — {}", command.usage, command.about),
        None => {
            let lines = COMMANDS.iter().map(|command| format!("\n{} — {}", command.usage, command.about));
            format!("Commands:{}", lines.collect::<String>())
        }
    }
}

/// Every way to part a text into the words that may be a name and what follows, the longest name first.
pub fn split_name(text: &str, max_words: usize) -> impl Iterator<Item = (&str, &str)> {
    let ends = text.match_indices(char::is_whitespace).map(|(at, _)| at);
    // White space in a row would part the text at the same words again.
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
    fn commands_and_what_they_are_given() {
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
    fn mistakes_say_what_to_type() {
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
    fn a_text_is_parted_at_every_word() {
        let parted: Vec<_> = split_name("Ann Lee  hi you", 3).collect();
        assert_eq!(parted, [("Ann Lee  hi", "you"), ("Ann Lee", "hi you"), ("Ann", "Lee  hi you")]);
        let parted: Vec<_> = split_name("Ann Lee", 3).collect();
        assert_eq!(parted, [("Ann Lee", ""), ("Ann", "Lee")]);
    }
}
