//! The command line.

use crate::support::{Result, are_for_tests};

const USAGE: &str =
    "cargo bench --bench throughput -- [--case NAME]... [--rounds N] [--save NAME] [--against NAME]";
const FLAGS: &[&str] = &["--case", "--rounds", "--save", "--against"];

#[derive(Default)]
pub struct Options {
    /// Empty: those that run by default.
    pub cases: Vec<String>,
    pub rounds: Option<usize>,
    /// The name under which the figures are saved.
    pub save: Option<String>,
    /// The name of saved figures to compare with.
    pub against: Option<String>,
    /// Cargo passes `--bench` for `cargo bench`, and not for `cargo test`.
    pub full: bool,
}

impl Options {
    /// `None`: these are arguments for tests, as in `cargo test NAME`.
    pub fn parse(arguments: &[String], cases: &[&str]) -> Result<Option<Self>> {
        if are_for_tests(arguments, FLAGS) {
            return Ok(None);
        }
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().cloned().ok_or(format!("{argument} needs a value: {USAGE}"));
            match argument.as_str() {
                "--bench" => options.full = true,
                "--case" => {
                    let case = value()?;
                    if !cases.contains(&case.as_str()) {
                        return Err(format!("no case {case}: there are {}", cases.join(", ")).into());
                    }
                    options.cases.push(case);
                }
                "--rounds" => {
                    let rounds = value()?.parse().ok().filter(|&rounds| rounds > 0);
                    options.rounds = Some(rounds.ok_or("--rounds needs a number above 0")?);
                }
                "--save" => options.save = Some(value()?),
                "--against" => options.against = Some(value()?),
                _ => return Err(format!("unknown argument {argument}: {USAGE}").into()),
            }
        }
        Ok(Some(options))
    }
}
