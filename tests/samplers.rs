//! Samplers against the numbers of diffusers (`tests/golden/samplers.py` makes them), and what must hold of any sampler.
use std::collections::HashMap;

use mirage::diffusion::{
    BetaSchedule, Error, LCM_ORIGINAL_STEPS, NoiseSchedule, Plan, Prediction, Sampler, Settings, Spacing,
};
use proptest::prelude::*;
use serde::Deserialize;

/// Both sides compute in f64 and differ by the order of operations alone, which the worst cases (dividing by the last `sqrt(alpha_bar)`
/// of the cosine schedule, 5e-5) magnify. diffusers' own float32 run is up to 2.3e-3 away from the same numbers.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Golden {
    clean: Vec<f64>,
    schedules: HashMap<String, GoldenSchedule>,
    timestep_sums: HashMap<String, Vec<f64>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct GoldenSchedule {
    beta_schedule: String,
    #[serde(default)]
    beta_start: f64,
    #[serde(default)]
    beta_end: f64,
    num_train_timesteps: usize,
    timesteps: Vec<usize>,
    alpha_bar: Vec<f64>,
    alpha_bar_float32: Vec<f64>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Case {
    sampler: String,
    schedule: Option<String>,
    prediction: String,
    spacing: String,
    offset: usize,
    set_alpha_to_one: Option<bool>,
    clip: Option<f64>,
    strength: Option<f64>,
    eta: f64,
    original_steps: Option<usize>,
    steps: usize,
    init_noise_sigma: f64,
    begin: Vec<f64>,
    end: Vec<f64>,
    timesteps: Option<Vec<f64>>,
    between: Vec<Vec<f64>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/samplers.json")).expect("the stored file parses")
}

fn spacing(name: &str) -> Spacing {
    match name {
        "" | "leading" => Spacing::Leading,
        "linspace" => Spacing::Linspace,
        "trailing" => Spacing::Trailing,
        other => panic!("{other}"),
    }
}

impl GoldenSchedule {
    fn schedule(&self) -> NoiseSchedule {
        let (start, end) = (self.beta_start, self.beta_end);
        let betas = match self.beta_schedule.as_str() {
            "linear" => BetaSchedule::Linear { start, end },
            "scaled_linear" => BetaSchedule::ScaledLinear { start, end },
            "squaredcos_cap_v2" => BetaSchedule::Cosine,
            other => panic!("{other}"),
        };
        NoiseSchedule::new(betas, self.num_train_timesteps).expect("a schedule that diffusers took")
    }
}

impl Case {
    fn settings(&self) -> Settings {
        Settings {
            sampler: match self.sampler.as_str() {
                "ddim" => Sampler::Ddim { eta: self.eta },
                "euler" => Sampler::Euler,
                "lcm" => Sampler::Lcm { original_steps: self.original_steps.unwrap_or(LCM_ORIGINAL_STEPS) },
                other => panic!("{other}"),
            },
            prediction: match self.prediction.as_str() {
                "" | "epsilon" => Prediction::Epsilon,
                "sample" => Prediction::Sample,
                "v_prediction" => Prediction::VPrediction,
                other => panic!("{other}"),
            },
            spacing: spacing(&self.spacing),
            steps_offset: self.offset,
            set_alpha_to_one: self.set_alpha_to_one.unwrap_or(true),
            clip: self.clip,
            steps: self.steps,
            strength: self.strength.unwrap_or(1.0),
        }
    }
}

/// The made-up noise of draw `k`, element `i`.
fn noise(k: usize, i: usize) -> f64 {
    1.3 * (13.0 * (k as f64 + 1.0) + 4.0 * i as f64).sin()
}

/// The sample of element `i` before each step and after the last, with the made-up network.
fn trajectory(plan: &Plan, clean: f64, i: usize) -> Vec<f64> {
    let mut x = plan.start.signal * clean + plan.start.noise * noise(0, i);
    let mut all = vec![x];
    for (k, step) in plan.steps.iter().enumerate() {
        let out = 0.3 * (step.input_scale * x) + (step.timestep / 100.0).sin();
        x = step.next(x, out, noise(k + 1, i));
        all.push(x);
    }
    all
}

fn near(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0)
}

#[test]
fn alpha_bars_match_diffusers() {
    for (name, golden) in golden().schedules {
        let schedule = golden.schedule();
        let stored = golden.alpha_bar.iter().zip(&golden.alpha_bar_float32);
        for (&t, (&wide, &narrow)) in golden.timesteps.iter().zip(stored) {
            let ours = schedule.alpha_bar(t);
            assert!((ours / wide - 1.0).abs() < 1e-11, "{name} {t}: {ours} {wide}");
            // A product of up to 1000 factors, each rounded to float32; the last cosine beta is 1 - 0.001 in float32.
            assert!((ours / narrow - 1.0).abs() < 2e-5, "{name} {t}: {ours} {narrow}");
        }
    }
}

#[test]
fn every_number_of_steps_has_the_timesteps_of_diffusers() {
    for (name, sums) in golden().timestep_sums {
        assert_eq!(sums.len(), 1000);
        for (steps, theirs) in (1..).zip(sums) {
            let timesteps = spacing(&name).timesteps(steps, 1000, 0).unwrap();
            let ours: f64 = (1..).zip(timesteps).map(|(i, t)| f64::from(i) * t.round_ties_even()).sum();
            assert_eq!(ours, theirs, "{name}, {steps} steps");
        }
    }
}

#[test]
fn samplers_match_diffusers() {
    let golden = golden();
    assert!(golden.cases.len() > 500);
    for case in &golden.cases {
        let name = case.schedule.as_deref().unwrap_or("scaled_linear");
        let schedule = golden.schedules[name].schedule();
        let plan = Plan::new(&schedule, &case.settings()).unwrap();
        assert!(near(plan.init_noise_sigma, case.init_noise_sigma, TOLERANCE), "{case:?}");
        if let Some(theirs) = &case.timesteps {
            let ours: Vec<f64> = plan.steps.iter().map(|step| step.timestep).collect();
            assert_eq!(ours.len(), theirs.len(), "{case:?}");
            assert!(ours.iter().zip(theirs).all(|(a, b)| near(*a, *b, 1e-12)), "{case:?}");
        }
        for (i, &clean) in golden.clean.iter().enumerate() {
            let ours = trajectory(&plan, clean, i);
            let last = ours.len() - 1;
            assert!(near(ours[0], case.begin[i], TOLERANCE), "{case:?} {ours:?}");
            assert!(near(ours[last], case.end[i], TOLERANCE), "{case:?} {ours:?}");
            for (ours, theirs) in ours[1..last].iter().zip(&case.between) {
                assert!(near(*ours, theirs[i], TOLERANCE), "{case:?} {ours}");
            }
        }
    }
}

fn any_betas() -> impl Strategy<Value = BetaSchedule> {
    let ends = (1e-5..1e-2, 1.0..20.0).prop_map(|(start, factor): (f64, f64)| (start, start * factor));
    prop_oneof![
        ends.clone().prop_map(|(start, end)| BetaSchedule::Linear { start, end }),
        ends.prop_map(|(start, end)| BetaSchedule::ScaledLinear { start, end }),
        Just(BetaSchedule::Cosine),
    ]
}

prop_compose! {
    /// Settings that diffusers would take, and the number of training timesteps. LCM is left to its own tests: it is no ODE.
    fn any_settings()(
        train in 1usize..300,
        steps in 1usize..60,
        strength in 0.01f64..=1.0,
        eta in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0],
        euler: bool,
        prediction in prop_oneof![Just(Prediction::Epsilon), Just(Prediction::Sample), Just(Prediction::VPrediction)],
        spacing in prop_oneof![Just(Spacing::Leading), Just(Spacing::Linspace), Just(Spacing::Trailing)],
    ) -> (usize, Settings) {
        let sampler = if euler { Sampler::Euler } else { Sampler::Ddim { eta } };
        let steps = steps.min(train);
        (train, Settings { prediction, spacing, strength, ..Settings::new(sampler, steps) })
    }
}

proptest! {
    #[test]
    fn a_plan_is_finite_decreasing_and_of_the_right_length(betas in any_betas(), (train, settings) in any_settings()) {
        let schedule = NoiseSchedule::new(betas, train).unwrap();
        match Plan::new(&schedule, &settings) {
            Ok(plan) => {
                prop_assert_eq!(plan.steps.len(), (settings.steps as f64 * settings.strength) as usize);
                prop_assert!(plan.steps.windows(2).all(|pair| pair[0].timestep > pair[1].timestep));
                for step in &plan.steps {
                    prop_assert!(step.next(1.0, 1.0, 1.0).is_finite());
                    prop_assert!(step.input_scale > 0.0 && step.input_scale <= 1.0);
                }
            }
            Err(error) => prop_assert!(matches!(error, Error::NothingToRun { .. }), "{}", error),
        }
    }

    /// Whatever the model says is noise and signal, a step from `signal * clean + noise * gaussian` keeps their variances where
    /// the sampler's next noise level has them: what DDIM calls the same marginals.
    #[test]
    fn a_perfect_model_is_followed_exactly(
        betas in any_betas(), (train, settings) in any_settings(), clean in -1.0f64..1.0, gaussian in -3.0f64..3.0,
    ) {
        let schedule = NoiseSchedule::new(betas, train).unwrap();
        let Ok(plan) = Plan::new(&schedule, &settings) else { return Ok(()) };
        for (i, step) in plan.steps.iter().enumerate() {
            let (signal, noise) = level(&schedule, settings.sampler, step.timestep);
            let x = signal * clean + noise * gaussian;
            let out = perfect(settings, signal, noise, clean, gaussian);
            // Absolute: x0 comes from a difference of numbers up to 1 / signal.
            prop_assert!((step.x0(x, out) - clean).abs() < 1e-11 / signal.min(1.0), "{:?}", step);
            let next = step.next(x, out, 0.0);
            match settings.sampler {
                Sampler::Euler => {
                    let sigma = plan.steps.get(i + 1).map_or(0.0, |next| schedule.sigma(next.timestep));
                    prop_assert!((next - (clean + sigma * gaussian)).abs() < 1e-9);
                }
                Sampler::Ddim { .. } => {
                    let t = step.timestep as usize;
                    let then = t.checked_sub(train / settings.steps).map_or(1.0, |t| schedule.alpha_bar(t));
                    let kept = (next - then.sqrt() * clean) / gaussian;
                    let variance = then + kept * kept + step.next_from_noise * step.next_from_noise;
                    prop_assert!(gaussian.abs() < 0.01 || (variance - 1.0).abs() < 1e-6, "{}", variance);
                }
                Sampler::Lcm { .. } => unreachable!(),
            }
        }
    }
}

/// The weights of signal and noise in the sample at timestep `t`.
fn level(schedule: &NoiseSchedule, sampler: Sampler, t: f64) -> (f64, f64) {
    match sampler {
        Sampler::Euler => (1.0, schedule.sigma(t)),
        Sampler::Ddim { .. } | Sampler::Lcm { .. } => {
            let alpha_bar = schedule.alpha_bar(t as usize);
            (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt())
        }
    }
}

/// What a network that knows the truth puts out.
fn perfect(settings: Settings, signal: f64, noise: f64, clean: f64, gaussian: f64) -> f64 {
    match settings.prediction {
        Prediction::Epsilon => gaussian,
        Prediction::Sample => clean,
        Prediction::VPrediction => {
            let scale = signal.hypot(noise);
            (signal * gaussian - noise * clean) / scale
        }
    }
}

fn stable_diffusion() -> NoiseSchedule {
    let betas = BetaSchedule::ScaledLinear { start: 0.00085, end: 0.012 };
    NoiseSchedule::new(betas, 1000).expect("a published schedule")
}

/// Runs a plan with a network that always knows the clean value, from a start at the plan's own noise level.
fn redraw(plan: &Plan, schedule: &NoiseSchedule, settings: Settings, clean: f64) -> f64 {
    let mut x = plan.start.signal * clean + plan.start.noise * noise(0, 0);
    for (k, step) in plan.steps.iter().enumerate() {
        let (signal, level) = level(schedule, settings.sampler, step.timestep);
        let out = perfect(settings, signal, level, clean, (x - signal * clean) / level);
        x = step.next(x, out, noise(k + 1, 0));
    }
    x
}

#[test]
fn a_perfect_model_recovers_the_clean_sample() {
    let schedule = stable_diffusion();
    let lcm = Sampler::Lcm { original_steps: LCM_ORIGINAL_STEPS };
    for sampler in [Sampler::Ddim { eta: 0.0 }, Sampler::Ddim { eta: 1.0 }, Sampler::Euler, lcm] {
        for prediction in [Prediction::Epsilon, Prediction::Sample, Prediction::VPrediction] {
            for steps in [1, 2, 4, 20, 50] {
                for strength in [1.0, 0.5] {
                    let settings = Settings { prediction, strength, ..Settings::new(sampler, steps) };
                    let Ok(plan) = Plan::new(&schedule, &settings) else {
                        assert!(strength < 1.0);
                        continue;
                    };
                    let end = redraw(&plan, &schedule, settings, 0.7);
                    // The boundary condition of LCM lets a trace of the noise through: 0.25 / (10 t)^2 and less, t >= 19.
                    let tolerance = if sampler == lcm { 1e-4 } else { 1e-10 };
                    assert!((end - 0.7).abs() < tolerance, "{settings:?}: {end}");
                }
            }
        }
    }
}

#[test]
fn fresh_noise_is_asked_for_only_where_it_is_used() {
    let schedule = stable_diffusion();
    let weights = |sampler| -> Vec<f64> {
        let plan = Plan::new(&schedule, &Settings::new(sampler, 4)).unwrap();
        plan.steps.iter().map(|step| step.next_from_noise).collect()
    };
    assert_eq!(weights(Sampler::Ddim { eta: 0.0 }), [0.0; 4]);
    assert_eq!(weights(Sampler::Euler), [0.0; 4]);
    for sampler in [Sampler::Ddim { eta: 1.0 }, Sampler::Lcm { original_steps: 50 }] {
        let weights = weights(sampler);
        assert!(weights[..3].iter().all(|weight| *weight > 0.0));
        assert_eq!(weights[3], 0.0, "the last step ends clean");
    }
}

#[test]
fn clipping_bounds_the_clean_sample_for_every_sampler() {
    let schedule = stable_diffusion();
    for sampler in [Sampler::Ddim { eta: 0.0 }, Sampler::Euler, Sampler::Lcm { original_steps: 50 }] {
        let settings = Settings { clip: Some(1.0), ..Settings::new(sampler, 3) };
        let plan = Plan::new(&schedule, &settings).unwrap();
        assert!(plan.steps.iter().all(|step| step.x0(1e6, -3.0) == 1.0 && step.x0(-1e6, 3.0) == -1.0));
    }
}

#[test]
fn settings_out_of_range_are_errors() {
    let schedule = stable_diffusion();
    let plan = |settings: Settings| Plan::new(&schedule, &settings).map(|_| ());
    let ddim = |eta, steps| Settings::new(Sampler::Ddim { eta }, steps);
    for eta in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(plan(ddim(eta, 4)), Err(Error::Eta(_))));
    }
    for clip in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let settings = Settings { clip: Some(clip), ..ddim(0.0, 4) };
        assert!(matches!(plan(settings), Err(Error::Clip(_))));
    }
    for steps in [0, 1001, usize::MAX] {
        for sampler in [Sampler::Ddim { eta: 0.0 }, Sampler::Euler, Sampler::Lcm { original_steps: 50 }] {
            let error = plan(Settings::new(sampler, steps)).unwrap_err();
            assert!(matches!(error, Error::Steps { .. } | Error::TooFewLcmTimesteps { .. }), "{error}");
        }
    }
    let weak = Settings { strength: 0.2, ..ddim(0.0, 4) };
    assert_eq!(
        plan(weak).unwrap_err().to_string(),
        "strength 0.2 of 4 steps leaves no step to run; raise the strength to 0.250 or more, or take more steps"
    );
}
