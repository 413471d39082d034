//! Text in columns.

use std::fmt;

/// Rows of as many cells as there are columns.
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows. A head that begins with `>` has its column on the right-hand side, as numbers are.
    pub(super) fn new<'h>(heads: impl IntoIterator<Item = &'h str>) -> Table {
        Table { heads: heads.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing are empty.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().map(printable).collect();
        row.resize(self.heads.len(), String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> =
            self.heads.iter().map(|head| head.trim_start_matches('>').to_owned()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&names]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        for row in [&names].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), head) in row.iter().zip(&widths).zip(&self.heads) {
                let cell =
                    if head.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line += &cell;
                line += "  ";
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names and texts come from peers, too: none of them moves a terminal's cursor.
fn printable(cell: String) -> String {
    if cell.chars().any(char::is_control) { cell.escape_debug().to_string() } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["name", ">frames"]);
        table.row(["a".into(), "12345678".into()]);
        table.row(["long-name".into()]);
        assert_eq!(table.to_string(), "name         frames\na          12345678\nlong-name\n");
    }

    #[test]
    fn no_text_moves_the_cursor() {
        let mut table = Table::new(["name"]);
        table.row(["\x1b[2J".into()]);
        assert_eq!(table.to_string(), "name\n\\u{1b}[2J\n");
    }
}
