//! The look of every table on a terminal.
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// An empty table; the columns from `numbers` on are aligned to the right.
pub fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
