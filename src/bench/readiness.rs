//! Whether a network's sizes suit tensor cores: what each layer asks of them and what would have to change.
//!
//! Sources: NVIDIA, *Matrix Multiplication Background* (16-byte alignment of every dimension, tiles of 64 rows and
//! more) and the head dims that FlashAttention-2 has kernels for (arXiv:2307.08691).
use crate::model::Parameter;

/// Half-precision values in 16 bytes, the unit in which tensor cores are fed.
const ALIGNMENT: usize = 8;
/// Pixels below which reading weights takes longest; rows of the smallest tile that fills a warp group.
const TILE_ROWS: usize = 64;
/// The largest head dim of FlashAttention.
const LARGEST_HEAD: usize = 256;

/// What is at fault in one layer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The layer's name in the checkpoint.
    pub layer: String,
    /// What is the matter.
    pub fault: String,
    /// What would mend it.
    pub change: String,
}

/// The run that the network is judged for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples in a batch.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// What both sides divide by: so many times smaller is the smallest resolution.
    pub multiple: usize,
}

/// Judges every layer; `heads` gives the number of heads where a layer is the query projection of an attention.
pub fn findings(parameters: &[Parameter], shape: Shape, heads: impl Fn(&str) -> Option<usize>) -> Vec<Finding> {
    let mut found = vec![];
    for p in parameters {
        let Some(layer) = p.name.strip_suffix(".weight") else { continue };
        let (outputs, inputs) = match p.shape[..] {
            [outputs, inputs, _, _] | [outputs, inputs] => (outputs, inputs),
            _ => continue,
        };
        for (what, channels) in [("input", inputs), ("output", outputs)] {
            if channels % ALIGNMENT != 0 {
                found.push(Finding {
                    layer: layer.to_owned(),
                    fault: format!("{channels} {what} channels do not divide by {ALIGNMENT}"),
                    change: format!("pad to {} {what} channels", channels.next_multiple_of(ALIGNMENT)),
                });
            }
        }
        if let Some(heads) = heads(layer) {
            let attention = layer.rsplit_once('.').map_or(layer, |(attention, _)| attention);
            found.extend(head(attention, outputs, heads));
        }
    }
    let (height, width) = (shape.height / shape.multiple, shape.width / shape.multiple);
    let smallest = shape.batch * height * width;
    if smallest < TILE_ROWS {
        found.push(Finding {
            layer: format!("all layers at {width}x{height}"),
            fault: format!(
                "{smallest} pixels, fewer than {TILE_ROWS}: a weight serves so few that these layers are bound by reading their weights"
            ),
            change: format!("batch {} frames, or draw a larger picture", TILE_ROWS.div_ceil((height * width).max(1))),
        });
    }
    found
}

fn head(attention: &str, channels: usize, heads: usize) -> Option<Finding> {
    let dim = channels / heads;
    let padded = dim.next_multiple_of(ALIGNMENT);
    let (fault, change) = if dim > LARGEST_HEAD {
        (format!("head dim {dim} is above {LARGEST_HEAD}"), format!("{} heads", channels.div_ceil(LARGEST_HEAD)))
    } else if padded != dim {
        let waste = 100 * (padded - dim) / padded;
        let heads = (1..=heads).rev().find(|h| channels.is_multiple_of(*h) && (channels / h).is_multiple_of(ALIGNMENT));
        let instead = heads.map_or(String::new(), |h| format!(", or train with {h} heads of {}", channels / h));
        (
            format!("head dim {dim} does not divide by {ALIGNMENT}"),
            format!("pad to {padded} ({waste} % of the attention's work is then padding){instead}"),
        )
    } else {
        return None;
    };
    Some(Finding { layer: attention.to_owned(), fault, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { batch: 1, height: 64, width: 64, multiple: 16 };

    fn heads(layer: &str) -> Option<usize> {
        layer.ends_with(".q_proj").then_some(16)
    }

    fn parameter(name: &str, shape: &[usize]) -> Parameter {
        Parameter { name: name.into(), shape: shape.into() }
    }

    #[test]
    fn a_layer_that_fits_is_not_listed() {
        let shape = Shape { batch: 4, ..SHAPE };
        let fitting = [parameter("a.weight", &[64, 128, 3, 3]), parameter("b.q_proj.weight", &[128, 128])];
        assert_eq!(findings(&fitting, shape, heads), []);
    }

    #[test]
    fn each_fault_names_its_layer_and_a_change() {
        let faulty = [parameter("in.weight", &[64, 3, 3, 3]), parameter("attn.q_proj.weight", &[192, 192])];
        let found = findings(&faulty, SHAPE, heads);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].layer.as_str(), found[0].change.as_str()), ("in", "pad to 8 input channels"));
        assert_eq!(found[1].layer, "attn");
        assert!(found[1].change.starts_with("pad to 16 (25 % of"), "{}", found[1].change);
        assert!(found[1].change.ends_with("12 heads of 16"), "{}", found[1].change);
        assert_eq!(
            found[2].fault,
            "16 pixels, fewer than 64: a weight serves so few that these layers are bound by reading their weights"
        );
        assert_eq!(found[2].change, "batch 4 frames, or draw a larger picture");
        // a picture smaller than the smallest resolution is no reason to panic
        assert_eq!(findings(&[], Shape { height: 8, ..SHAPE }, heads).len(), 1);
    }
}
