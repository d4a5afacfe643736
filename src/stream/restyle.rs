//! How a network with styles is run: its steps, the noise on its history, the weights of its styles.
use super::config::StreamConfig;
use crate::diffusion::{BetaSchedule, NoiseSchedule, Plan, Spacing, Start};
use crate::model::FrameNetwork;
use crate::{Error, Result};

/// What [`Sampling::Restyle`] works out before the first frame.
pub(super) struct Restyle {
    /// The steps of a frame without history, and of one with it.
    pub plans: [Plan; 2],
    /// Shares of signal and noise in the history that the network is given.
    pub history: Start,
    pub history_timestep: usize,
}

/// `strength` of the style, and the rest of the first, which leaves the input as it is.
pub(super) fn mixed_with_none(style: &[f64], strength: f64) -> Vec<f64> {
    style.iter().enumerate().map(|(i, w)| w * strength + if i == 0 { 1.0 - strength } else { 0.0 }).collect()
}

pub(super) fn check_style(network: &dyn FrameNetwork, style: &[f64]) -> Result<()> {
    let Some(restyling) = network.restyling() else {
        return Err(Error::Stream("this network has no styles".into()));
    };
    let sum: f64 = style.iter().sum();
    if style.len() == restyling.styles.len()
        && style.iter().all(|w| (0.0..=1.0).contains(w))
        && (sum - 1.0).abs() < 1e-6
    {
        return Ok(());
    }
    Err(Error::Stream(format!(
        "style weights {style:?} are not one for each of {}, from 0 to 1, with the sum 1",
        restyling.styles.join(", ")
    )))
}

pub(super) fn restyle(network: &dyn FrameNetwork, config: &StreamConfig) -> Result<Restyle> {
    check_style(network, &config.style)?;
    let timesteps = network.timesteps();
    let Some(restyling) = network.restyling() else {
        return Err(Error::Stream("this network was not trained to restyle a stream: choose another sampler".into()));
    };
    let schedule = NoiseSchedule::new(BetaSchedule::Cosine, timesteps)?;
    // evenly from the noisiest down: two of a thousand are 999 and 499
    let even: Vec<usize> =
        Spacing::Trailing.timesteps(config.steps, timesteps, 0)?.iter().map(|t| *t as usize).collect();
    let through = |timesteps: &[usize]| Plan::through(&schedule, timesteps, 1.0);
    let history_timestep = config.history_timestep.unwrap_or(restyling.history_timestep);
    if history_timestep >= timesteps {
        return Err(Error::Stream(format!("history timestep {history_timestep} is not below {timesteps}")));
    }
    let signal = schedule.alpha_bar(history_timestep);
    Ok(Restyle {
        plans: [through(&restyling.first_frame)?, through(&even)?],
        history: Start { signal: signal.sqrt(), noise: (1.0 - signal).sqrt() },
        history_timestep,
    })
}
