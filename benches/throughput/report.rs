//! Tables of figures, which can be saved and compared with those of another run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::Result;

pub struct Report {
    /// By case, row and column.
    figures: BTreeMap<String, f64>,
    /// The figures of another run.
    against: Option<BTreeMap<String, f64>>,
    lost: u64,
}

pub struct Column {
    pub title: &'static str,
    pub show: fn(f64) -> String,
}

/// The table of one case.
pub struct Table<'a> {
    report: &'a mut Report,
    case: &'static str,
    columns: &'static [Column],
    lines: Vec<Vec<String>>,
}

impl Report {
    /// `against`: the name of saved figures to compare with.
    pub fn new(against: Option<&str>) -> Result<Self> {
        let read = |name: &str| -> Result<_> {
            let path = path(name);
            let file = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(serde_json::from_slice(&file)?)
        };
        Ok(Self { figures: BTreeMap::new(), against: against.map(read).transpose()?, lost: 0 })
    }

    pub fn table(&mut self, case: &'static str, columns: &'static [Column]) -> Table<'_> {
        let titles = [case, ""].into_iter().chain(columns.iter().map(|column| column.title));
        let lines = vec![titles.map(str::to_owned).collect()];
        Table { report: self, case, columns, lines }
    }

    /// Counts messages that were not delivered.
    pub fn lost(&mut self, messages: u64) {
        self.lost += messages;
    }

    /// Saves the figures under this name.
    ///
    /// # Errors
    /// Messages were lost.
    pub fn finish(self, save: Option<&str>) -> Result<()> {
        println!("\n{} messages were lost.", self.lost);
        if let Some(name) = save {
            let path = path(name);
            fs::create_dir_all(path.parent().expect("the path has a folder"))?;
            fs::write(&path, serde_json::to_vec_pretty(&self.figures)?)?;
            println!("Saved as {}: compare with --against {name}.", path.display());
        }
        if self.lost == 0 { Ok(()) } else { Err("messages were lost".into()) }
    }
}

impl Table<'_> {
    /// A row, by what was done and to which target. `None`: the column does not apply.
    pub fn row(&mut self, what: &str, target: &str, values: &[Option<f64>]) {
        let mut line = vec![what.to_owned(), target.to_owned()];
        for (column, value) in self.columns.iter().zip(values) {
            let Some(value) = *value else {
                line.push(String::new());
                continue;
            };
            let key = format!("{}/{what}/{target}/{}", self.case, column.title);
            let mut cell = (column.show)(value);
            if let Some(before) = self.report.against.as_ref().and_then(|against| against.get(&key))
                && *before != 0.0
            {
                cell.push_str(&format!(" ({:+.0}%)", (value / before - 1.0) * 100.0));
            }
            line.push(cell);
            self.report.figures.insert(key, value);
        }
        self.lines.push(line);
    }

    pub fn print(self) {
        let width =
            |column: usize| self.lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len() + 2).map(width).collect();
        for line in &self.lines {
            let (text, figures) = line.split_at(2);
            print!("{:<2$}  {:<3$}", text[0], text[1], widths[0], widths[1]);
            for (figure, width) in figures.iter().zip(&widths[2..]) {
                print!("  {figure:>width$}");
            }
            println!();
        }
    }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values.into_iter().collect(), 50)
}

/// The value that this percentage of all values does not exceed.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

pub fn millions(value: f64) -> String {
    format!("{:.2} M", value / 1e6)
}

/// Seconds, in microseconds.
pub fn microseconds(value: f64) -> String {
    format!("{:.3} µs", value * 1e6)
}

/// Seconds, in milliseconds.
pub fn milliseconds(value: f64) -> String {
    format!("{:.2} ms", value * 1e3)
}

/// Bytes, in KiB.
pub fn kilobytes(value: f64) -> String {
    format!("{:.1} KB", value / 1024.0)
}

/// Bytes, in MiB.
pub fn megabytes(value: f64) -> String {
    format!("{:.2} MB", value / (1024.0 * 1024.0))
}

pub fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

pub fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("throughput").join(name).with_extension("json")
}
