//! Columns without borders, as command lines of clusters have them.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, Table, Width};

use crate::units;

/// Space between columns.
const GAP: u16 = 2;

/// What stands where nothing is known.
pub(crate) const UNKNOWN: &str = "-";

/// Title of a column; numbers stand on the right.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Text.
    Text(&'static str),
    /// Numbers.
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title) | Self::Number(title) => title,
        }
    }
}

/// Columns and rows.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// From columns and rows of as many cells.
    pub(crate) fn new(columns: Vec<Column>, rows: Vec<Vec<String>>) -> Self {
        Self { columns, rows }
    }

    /// With its header.
    pub(crate) fn text(&self) -> String {
        line_by_line(&self.with_header())
    }

    /// With its header, at least as wide as `widths` say.
    pub(crate) fn with_widths(&self, widths: &[u16]) -> String {
        widened(self.with_header(), widths)
    }

    /// The same without its header.
    pub(crate) fn more(&self, widths: &[u16]) -> String {
        widened(self.table(), widths)
    }

    /// How wide each column is, its title included.
    pub(crate) fn widths(&self) -> Vec<u16> {
        self.with_header().column_max_content_widths()
    }

    fn with_header(&self) -> Table {
        let mut table = self.table();
        table.set_header(self.titles());
        self.lay_out(&mut table);
        table
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).force_no_tty();
        for row in &self.rows {
            let cells = row.iter().map(|text| Cell::new_owned(units::plain(text)));
            table.add_row(cells.collect::<Vec<_>>());
        }
        self.lay_out(&mut table);
        table
    }

    fn titles(&self) -> Vec<Cell> {
        self.columns.iter().map(|column| Cell::new(column.title())).collect()
    }

    /// Columns of the table come with its first row or its header.
    fn lay_out(&self, table: &mut Table) {
        for (shown, column) in table.column_iter_mut().zip(&self.columns) {
            shown.set_padding((0, GAP));
            if matches!(column, Column::Number(_)) {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
}

fn widened(mut table: Table, widths: &[u16]) -> String {
    for (column, width) in table.column_iter_mut().zip(widths) {
        let least = Width::Fixed(width.saturating_add(GAP));
        column.set_constraint(ColumnConstraint::LowerBoundary(least));
    }
    line_by_line(&table)
}

fn line_by_line(table: &Table) -> String {
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(rows: &[[&str; 2]]) -> Grid {
        let rows = rows.iter().map(|row| row.map(ToOwned::to_owned).to_vec()).collect();
        Grid::new(vec![Column::Text("NAME"), Column::Number("CORES")], rows)
    }

    #[test]
    fn numbers_stand_on_the_right_and_lines_end_clean() {
        let text = grid(&[["a", "1.000"], ["long-name", "12.500"]]).text();
        assert_eq!(text, "NAME        CORES\na           1.000\nlong-name  12.500\n");
    }

    #[test]
    fn no_rows_leave_the_header() {
        assert_eq!(grid(&[]).text(), "NAME  CORES\n");
    }

    #[test]
    fn later_rows_stand_below_the_first() {
        let first = grid(&[["long-name", "12.500"]]);
        assert_eq!(grid(&[["b", "1.000"]]).more(&first.widths()), "b           1.000\n");
    }
}
