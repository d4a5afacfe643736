//! Which styles are mixed, as `--style` takes them: `ink`, or `ink:0.6,neon:0.4`.
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Names of styles with their shares, as somebody asked for them.
#[derive(Clone, Debug, PartialEq)]
pub struct StyleMix(Vec<(String, f64)>);

/// Shares whose sum is this close to 1 are taken as they are.
const ROUNDING: f64 = 1e-6;

impl FromStr for StyleMix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split(',').map(|part| {
            let (name, share) = part.split_once(':').unwrap_or((part, "1"));
            match share.trim().parse::<f64>() {
                Ok(share) if share >= 0.0 && share.is_finite() && !name.trim().is_empty() => {
                    Ok((name.trim().to_owned(), share))
                }
                _ => Err(Error::Model(format!(
                    "style {part:?} is not a NAME or NAME:SHARE with a share of 0 or more, as in ink:0.6,neon:0.4"
                ))),
            }
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        if parts.iter().all(|(_, share)| *share == 0.0) {
            return Err(Error::Model(format!("style {text:?}: at least one share must be above 0")));
        }
        Ok(Self(parts))
    }
}

impl StyleMix {
    /// A weight for each of `styles`, with the sum 1, and what to tell whoever asked: that shares were scaled to that sum.
    ///
    /// # Errors
    /// A name that is not among them; all names and the nearest one are listed.
    pub fn resolve(&self, styles: &[String]) -> Result<(Vec<f64>, Option<String>)> {
        let sum: f64 = self.0.iter().map(|(_, share)| share).sum();
        let mut weights = vec![0.0; styles.len()];
        for (name, share) in &self.0 {
            let i = styles.iter().position(|style| style == name).ok_or_else(|| unknown(name, styles))?;
            weights[i] += share / sum;
        }
        let note = ((sum - 1.0).abs() > ROUNDING).then(|| {
            let said = styles.iter().zip(&weights).filter(|(_, w)| **w > 0.0);
            let said: Vec<String> = said.map(|(name, w)| format!("{name}:{w:.3}")).collect();
            format!("the shares of --style have the sum {sum}, so they were scaled to 1: {}", said.join(","))
        });
        Ok((weights, note))
    }
}

fn unknown(name: &str, styles: &[String]) -> Error {
    if styles.is_empty() {
        return Error::Model(format!("no style {name:?}: this network has no styles"));
    }
    let near = styles.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let near = near.filter(|near| strsim::jaro_winkler(near, name) > 0.6);
    let near = near.map_or(".".to_owned(), |near| format!("; did you mean {near}?"));
    Error::Model(format!("no style {name:?}{near} The styles are {}", styles.join(", ")))
}

impl fmt::Display for StyleMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(name, share)| format!("{name}:{share}")).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styles() -> Vec<String> {
        ["none", "ink", "neon"].map(String::from).to_vec()
    }

    #[test]
    fn one_style_and_a_mix() {
        assert_eq!("ink".parse::<StyleMix>().unwrap().resolve(&styles()).unwrap(), (vec![0.0, 1.0, 0.0], None));
        let (weights, note) = "neon:0.4, ink:0.6".parse::<StyleMix>().unwrap().resolve(&styles()).unwrap();
        assert!((weights[1] - 0.6).abs() < 1e-12 && (weights[2] - 0.4).abs() < 1e-12 && note.is_none());
    }

    #[test]
    fn shares_are_scaled_and_that_is_said() {
        let (weights, note) = "ink:3,neon:1".parse::<StyleMix>().unwrap().resolve(&styles()).unwrap();
        assert_eq!(weights, [0.0, 0.75, 0.25]);
        assert!(note.unwrap().contains("ink:0.750,neon:0.250"));
    }

    #[test]
    fn misspelt_and_malformed_styles_are_told() {
        let said = "neom".parse::<StyleMix>().unwrap().resolve(&styles()).unwrap_err().to_string();
        assert!(said.contains("did you mean neon?") && said.contains("none, ink, neon"), "{said}");
        let said = "ink".parse::<StyleMix>().unwrap().resolve(&[]).unwrap_err().to_string();
        assert!(said.contains("no styles"), "{said}");
        for text in ["", "ink:", "ink:-1", "ink:nan", ":1", "ink,,neon", "ink:0"] {
            assert!(text.parse::<StyleMix>().is_err(), "{text:?}");
        }
    }
}
