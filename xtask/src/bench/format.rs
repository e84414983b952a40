//! Numbers as people read them, and the table on the terminal.

use std::fmt::Write as _;

use super::rows::{Row, Rows};

/// Columns of the table.
pub(super) const COLUMNS: [&str; 6] = ["what", "ours", "peer", "ratio", "goal", "met"];

/// The cells of a row, in the order of [`COLUMNS`].
pub(super) fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let peer = match (&row.peer_name, row.peer) {
        (Some(name), Some(value)) => format!("{} ({name})", quantity(value, &row.unit)),
        (Some(name), None) => format!("({name})"),
        (None, Some(value)) => quantity(value, &row.unit),
        (None, None) => "–".to_owned(),
    };
    let ratio = row.ratio.map_or("–".to_owned(), |ratio| format!("{} ×", number(ratio)));
    let goal = if row.goal.is_empty() { "–" } else { &row.goal };
    let cells = [&row.name, &quantity(row.ours, &row.unit), &peer, &ratio, goal, met(row)];
    cells.map(str::to_owned)
}

/// Whether the goal was met, in a word.
fn met(row: &Row) -> &'static str {
    match row.met {
        Some(true) => "yes",
        Some(false) => "MISSED",
        None if row.goal.is_empty() => "–",
        None => "unsure",
    }
}

/// A number with its unit.
fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => format!("{} bytes", number(value)),
        "" => number(value),
        unit => format!("{} {unit}", number(value)),
    }
}

/// Three digits that count, and thousands apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |parts| parts);
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() {
        return format!("{sign}{grouped}");
    }
    format!("{sign}{grouped}.{fraction}")
}

/// The table for a terminal: what, ours, peer, ratio, goal, met.
pub(super) fn table(rows: &Rows) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        text.push(' ');
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, " {cell:<width$} ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::row;
    use super::super::what::What;
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        let seen = [0.4056, 9.999, 12.34, 123.456, 250_000.0, 16_777_216.0, -1234.5].map(number);
        assert_eq!(seen, ["0.41", "10.00", "12.3", "123", "250,000", "16,777,216", "-1,234"]);
    }

    #[test]
    fn a_missed_goal_is_shown_and_so_is_what_cannot_be_said() {
        let mut missed = row("m");
        missed.met = Some(false);
        assert_eq!(cells(&missed)[5], "MISSED");
        let unsure = Row { met: None, ratio: None, ..row("u") };
        let [name, ours, peer, ratio, goal, met] = cells(&unsure);
        assert_eq!([name, ours, peer], ["u", "102 ns", "250 ns (a peer 1.0)"].map(str::to_owned));
        assert_eq!([ratio, goal, met], ["–", "≤ 0.5 × the peer", "unsure"].map(str::to_owned));
        let told = Row { goal: String::new(), met: None, ..row("t") };
        assert_eq!(cells(&told)[4..], ["–", "–"].map(str::to_owned));
    }

    #[test]
    fn columns_of_the_table_stand_below_each_other() {
        let mut rows = Rows::default();
        rows.replace(What::Usage, vec![row("short"), row("a longer name")]);
        let table = table(&rows);
        let at = |line: &str| line.chars().take_while(|c| *c != '1').count();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(at(lines[1]), at(lines[2]), "{table}");
    }
}
