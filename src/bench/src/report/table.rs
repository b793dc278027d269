//! A table that is Markdown for the page and has straight columns for the terminal.

use std::fmt;

/// Rows of cells below a head. The first column is text, the others are numbers and stand to the right.
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How many columns from the left are text.
    texts: usize,
}

impl Table {
    pub(crate) fn new(texts: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let head = head.into_iter().map(|cell| escaped(&cell.into())).collect();
        Self {
            head,
            rows: Vec::new(),
            texts,
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let cells = cells.into_iter().map(|cell| escaped(&cell.into()));
        self.rows.push(cells.collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// On one line, and without what would end the cell.
fn escaped(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        for (index, row) in lines().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if column < self.texts {
                    write!(f, "| {cell:<width$} ")?;
                } else {
                    write!(f, "| {cell:>width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    if column < self.texts {
                        write!(f, "| {:-<width$} ", "")?;
                    } else {
                        write!(f, "| {:->fill$}: ", "", fill = width - 1)?;
                    }
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_straight_and_cells_cannot_break_out() {
        let mut table = Table::new(1, ["what", "Myelin"]);
        table.row(["a|b", "1,234"]);
        table.row(["two\nlines", "2 ×"]);
        let expected = "\
| what      | Myelin |
| --------- | -----: |
| a\\|b      |  1,234 |
| two lines |    2 × |
";
        assert_eq!(table.to_string(), expected);
    }
}
