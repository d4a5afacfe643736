//! Whether what is drawn still follows what comes in: the picture's mean over each phase of the lap, in coarse cells.
use super::measures::Pixels;

/// Cells along each side of a picture.
const SIDE: usize = 8;
const CELLS: usize = SIDE * SIDE;

/// Sums of coarse pictures by their place in the lap. Noise averages out over laps and within cells, so a frozen output
/// with noise on it does not pass for one that moves.
pub struct Response {
    phases: Vec<Phase>,
}

#[derive(Clone)]
struct Phase {
    count: f64,
    input: [f64; CELLS],
    output: [f64; CELLS],
}

impl Response {
    /// Of an input that repeats after `period` frames.
    pub fn new(period: usize) -> Self {
        Self { phases: vec![Phase { count: 0.0, input: [0.0; CELLS], output: [0.0; CELLS] }; period] }
    }

    /// Adds a frame at its place in the lap.
    pub fn add(&mut self, phase: usize, input: &Pixels, output: &Pixels) {
        let Some(sums) = self.phases.get_mut(phase) else { return };
        sums.count += 1.0;
        for (sum, picture) in [(&mut sums.input, input), (&mut sums.output, output)] {
            sum.iter_mut().zip(cells(picture)).for_each(|(s, v)| *s += v);
        }
    }

    /// How far input and output move over the lap: mean absolute departure of luma from its mean over the lap.
    pub fn motion(&self) -> (f64, f64) {
        (self.motion_of(|p| &p.input), self.motion_of(|p| &p.output))
    }

    fn motion_of(&self, side: fn(&Phase) -> &[f64; CELLS]) -> f64 {
        let seen: Vec<[f64; CELLS]> =
            self.phases.iter().filter(|p| p.count > 0.0).map(|p| side(p).map(|v| v / p.count)).collect();
        let n = seen.len().max(1) as f64;
        let mean: [f64; CELLS] = std::array::from_fn(|c| seen.iter().map(|p| p[c]).sum::<f64>() / n);
        let apart = |p: &[f64; CELLS]| p.iter().zip(mean).map(|(v, m)| (v - m).abs()).sum::<f64>() / CELLS as f64;
        seen.iter().map(apart).sum::<f64>() / n
    }
}

/// Mean luma of each cell.
fn cells(pixels: &Pixels) -> [f64; CELLS] {
    let (width, height) = pixels.size();
    let (mut sums, mut counts) = ([0.0; CELLS], [0.0; CELLS]);
    for (i, luma) in pixels.luma().into_iter().enumerate() {
        let cell = (i / width * SIDE / height) * SIDE + i % width * SIDE / width;
        sums[cell] += f64::from(luma);
        counts[cell] += 1.0;
    }
    std::array::from_fn(|c| sums[c] / f64::max(counts[c], 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_told_from_what_only_flickers() {
        let picture = |value: f32| Pixels::new(vec![value; 3 * 64], 8, 8);
        let mut response = Response::new(4);
        for i in 0..80 {
            let flicker = if i / 4 % 2 == 0 { 0.1 } else { -0.1 };
            response.add(i % 4, &picture((i % 4) as f32 * 0.2), &picture(0.5 + flicker));
        }
        let (input, output) = response.motion();
        assert!((input - 0.2).abs() < 1e-6 && output < 1e-6, "{input} {output}");
    }
}
