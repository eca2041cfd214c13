//! The manual pages `tinychat(1)` and `tinychat(5)` in roff (man(7)), from the command line, the table of settings,
//! `.env.example` and docs/configuration.md.

use clap::{Arg, Command};
use tinychat::config::{SETTINGS, Setting};

/// What tinychat(1) says before and after the commands.
const START: &str = "\
.SH DESCRIPTION
TinyChat is a chat room in one program: a WebSocket server with JSON messages, TLS, and a chat page for browsers.
.PP
Without a command, it runs the server.
Every setting is a flag, an environment variable, or a line of the file
.I .env
in the working directory; the first of these that has it wins.
.BR tinychat (5)
describes the settings.
";
const END: &str = "\
.SH EXIT STATUS
.TP
.B 0
Success. The server was stopped by SIGTERM or SIGINT.
.TP
.B 1
The server could not start, or the command failed.
.TP
.B 2
The settings or the command line cannot be used.
.SH SIGNALS
.TP
.BR SIGTERM \", \" SIGINT
Stop: close all connections with code 1001, store what was said, and exit within 5 seconds.
.TP
.B SIGHUP
Load the certificate and the named moderators again. Connections stay open.
.SH FILES
.TP
.I /etc/tinychat/tinychat.env
The settings of the service. It is
.I .env
in the working directory of the service,
.IR /var/lib/tinychat .
.TP
.I /etc/tinychat/tls/live
The certificate and its key, as
.BR tinychat\\-deploy\\-hook (8)
copies them from certbot.
.TP
.I /var/lib/tinychat/tinychat.db
The store of the service: history, bans, time-outs, named moderators, and the audit log.
.TP
.I /usr/share/doc/tinychat
The complete documentation.
.SH EXAMPLES
Run a server for this machine only, and open http://127.0.0.1:8765/ in a browser:
.PP
.RS 4
.EX
tinychat
.EE
.RE
.PP
Check the settings, the certificate and the store of the service:
.PP
.RS 4
.EX
sudo \\-u tinychat env \\-C /var/lib/tinychat tinychat check
.EE
.RE
.SH SEE ALSO
.BR tinychat (5),
.BR tinychat\\-deploy\\-hook (8)
";
const SETTINGS_START: &str = "\
.SH NAME
tinychat \\- the settings of TinyChat
.SH DESCRIPTION
Each setting is looked up in three places, in this order; the first that has it wins:
.IP 1. 4
a flag of
.BR tinychat (1):
.B \\-\\-port 9000
for
.BR PORT ;
.IP 2. 4
an environment variable:
.BR PORT=9000 ;
.IP 3. 4
a line of the file
.I .env
in the working directory. For the service, this is
.IR /etc/tinychat/tinychat.env .
.PP
Settings are read at the start: to change one, restart the server.
.B tinychat check
reports every value that cannot be used.
.SH FILE FORMAT
A line is
.IR NAME=value .
A line that begins with # is a comment, and so is the rest of a line after a space and #.
A value without quotes is taken literally; quotes around a value are removed.
.I ${NAME}
is replaced by the environment variable of that name or, if there is none, by the value from a line above.
If a name occurs twice, the last line wins. Names that are not settings are ignored.
.SH SETTINGS
Booleans may be written in any case, and also as 1/0, yes/no or on/off. Items of a list are separated by commas.
";

/// tinychat(1). `command` is the whole command line, and has been [built](Command::build).
pub fn commands(command: &Command) -> String {
    let mut page = header("TINYCHAT", 1, "User Commands");
    let about = about(command);
    let summary = about.split(". ").next().unwrap();
    page += &format!(".SH NAME\ntinychat \\- {}\n", text(&summary.replacen("A JSON", "a JSON", 1)));
    page += ".SH SYNOPSIS\n.B tinychat\n[\\fIOPTIONS\\fR]\n";
    for line in synopses(command, "tinychat") {
        page += &format!(".br\n{line}\n");
    }
    page += START;
    page += ".SH COMMANDS\n";
    for (path, subcommand) in leaves(command, "") {
        page += &format!(".SS {}\n{}\n", text(&path), text(&sentence(&about_long(subcommand))));
        subcommand.get_arguments().filter(|arg| !is_common(arg)).for_each(|arg| page += &option(arg));
        let accepted: Vec<&str> = subcommand
            .get_arguments()
            .filter(|arg| is_setting(arg))
            .map(|arg| arg.get_id().as_str())
            .collect();
        match accepted.len() {
            0 => {}
            count if count == SETTINGS.len() => page += ".PP\nThe flags of all settings may follow.\n",
            _ => page += &format!(".PP\nThe flag of {} may follow.\n", bold(&accepted.join(", "))),
        }
    }
    page += ".SH OPTIONS\n";
    command.get_arguments().for_each(|arg| page += &option(arg));
    page + END
}

/// tinychat(5). `example` is `.env.example`, and `allowed` returns what docs/configuration.md says about the values of a
/// setting.
pub fn settings(example: &str, allowed: impl Fn(&str) -> String) -> String {
    let mut page = header("TINYCHAT", 5, "File Formats") + SETTINGS_START;
    for (setting, comment) in SETTINGS.iter().zip(comments(example)) {
        let default = setting.default.map_or("unset".into(), bold);
        page += &format!(
            ".TP\n{}\n{}\n.br\nAllowed: {}. Default: {default}.\n",
            bold(setting.name),
            text(&comment),
            text(&allowed(setting.name))
        );
    }
    page + ".SH SEE ALSO\n.BR tinychat (1)\n"
}

/// `/etc/tinychat/tinychat.env`: `.env.example` with every setting commented out, so that new versions may change
/// defaults.
pub fn service_settings(example: &str) -> String {
    let (_, settings) = example.split_once("\n\n").expect("the header of .env.example ends");
    let mut file = String::from(
        "# Settings of the service tinychat. Remove the # before a line to change a default, and restart the service:\n\
         # sudo systemctl restart tinychat. Relative paths are relative to /var/lib/tinychat. See tinychat(5).\n\n",
    );
    for line in settings.lines() {
        let is_setting = SETTINGS.iter().any(|setting| line.starts_with(&format!("{}=", setting.name)));
        file += &format!("{}{line}\n", if is_setting { "#" } else { "" });
    }
    file
}

/// The comment above each setting in `.env.example`, in the order of [`SETTINGS`].
fn comments(example: &str) -> Vec<String> {
    let mut lines = example.lines().peekable();
    let is_row = |line: &str, setting: &Setting| {
        line.trim_start_matches('#').strip_prefix(setting.name).is_some_and(|rest| rest.starts_with('='))
    };
    SETTINGS
        .iter()
        .map(|setting| {
            let mut comment: Vec<&str> = Vec::new();
            for line in lines.by_ref().take_while(|line| !is_row(line, setting)) {
                match line.strip_prefix("# ") {
                    Some(line) => comment.push(line),
                    None => comment.clear(),
                }
            }
            assert!(!comment.is_empty(), "{} has no comment", setting.name);
            comment.join(" ")
        })
        .collect()
}

fn header(name: &str, section: u32, title: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".\\\" Generated by a test: see \"Manual pages and completions\" in CONTRIBUTING.md.\n\
         .TH {name} {section} \"\" \"TinyChat {version}\" \"{title}\"\n"
    )
}

/// One line for each command.
fn synopses(command: &Command, name: &str) -> Vec<String> {
    let line = |path: &str, command: &Command| {
        let positional = |arg: &Arg| format!(" \\fI{}\\fR", text(&value_name(arg)));
        let positionals: String = command.get_positionals().map(positional).collect();
        let options = if command.get_opts().next().is_some() { " [\\fIOPTIONS\\fR]" } else { "" };
        format!("\\fB{name}\\fR {}{options}{positionals}", bold(path))
    };
    leaves(command, "").iter().map(|(path, command)| line(path, command)).collect()
}

/// The commands that do something, each with its words.
fn leaves<'a>(command: &'a Command, path: &str) -> Vec<(String, &'a Command)> {
    let subcommands = command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help");
    subcommands
        .flat_map(|subcommand| {
            let path = format!("{path}{}", subcommand.get_name());
            match subcommand.has_subcommands() {
                true => leaves(subcommand, &format!("{path} ")),
                false => vec![(path, subcommand)],
            }
        })
        .collect()
}

fn option(arg: &Arg) -> String {
    let value = if arg.get_action().takes_values() { value_name(arg) } else { String::new() };
    let is_optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let name = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => bold(&format!("-{short}, --{long}")),
        (_, Some(long)) => bold(&format!("--{long}")),
        _ => String::new(),
    };
    let value = match (name.is_empty(), value.is_empty(), is_optional) {
        (_, true, _) => String::new(),
        (true, ..) => format!("\\fI{}\\fR", text(&value)),
        (_, _, true) => format!(" [\\fI{}\\fR]", text(&value)),
        _ => format!(" \\fI{}\\fR", text(&value)),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<&str> = arg.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    let default = match (is_setting(arg), defaults.as_slice()) {
        (false, [default]) if arg.get_action().takes_values() => format!(" [default: {default}]"),
        _ => String::new(),
    };
    format!(".TP\n{name}{value}\n{}\n", text(&(help + &default)))
}

fn value_name(arg: &Arg) -> String {
    arg.get_value_names().and_then(<[_]>::first).map_or(String::new(), ToString::to_string)
}

fn is_setting(arg: &Arg) -> bool {
    SETTINGS.iter().any(|setting| arg.get_id() == setting.name)
}

/// Whether an argument is described once, under OPTIONS.
fn is_common(arg: &Arg) -> bool {
    is_setting(arg) || arg.get_id() == "help"
}

fn about(command: &Command) -> String {
    command.get_about().expect("every command says what it does").to_string()
}

fn about_long(command: &Command) -> String {
    command.get_long_about().map_or_else(|| about(command), ToString::to_string)
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.into() } else { format!("{text}.") }
}

fn bold(name: &str) -> String {
    format!("\\fB{}\\fR", escaped(name).replace('-', "\\-"))
}

/// Text in roff, on one line.
fn text(text: &str) -> String {
    let escaped = escaped(text).replace("--", "\\-\\-");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('\'', "\\(aq").replace('`', "\\(ga")
}
