//! Whether two classes of inputs take different times: Welch's t-test as dudect uses it (Reparaz, Balasch, Verbauwhede,
//! "Dude, is my code constant time?", 2017).

/// Times are compared whole, and without those above these shares of all: the tail is the operating system's.
const CROPS: [f64; 5] = [1.0, 0.98, 0.9, 0.75, 0.5];
/// Fewer samples than this say nothing.
const LEAST: usize = 50;

/// Sum statistics of one class (Welford, 1962).
#[derive(Default)]
struct Class {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Class {
    fn push(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}

/// Welch's t of the two classes' values: the difference of the means in units of its own standard error.
fn t(samples: impl Iterator<Item = (bool, f64)>) -> Option<f64> {
    let mut classes = [Class::default(), Class::default()];
    for (class, value) in samples {
        classes[usize::from(class)].push(value);
    }
    let [a, b] = classes;
    let error = (a.variance() / a.count + b.variance() / b.count).sqrt();
    (a.count.min(b.count) >= LEAST as f64 && error > 0.0).then(|| (a.mean - b.mean) / error)
}

/// The t of largest magnitude over all croppings; 0 where there are too few samples to say.
pub fn largest_t(samples: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = samples.iter().map(|&(_, value)| value).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    CROPS
        .iter()
        .filter_map(|crop| {
            let most = sorted[(last as f64 * crop) as usize];
            t(samples.iter().copied().filter(|&(_, value)| value <= most))
        })
        .max_by(|a, b| a.abs().total_cmp(&b.abs()))
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 values a class, 0 … 9 over and over; class 1's are larger by `shift`.
    fn samples(shift: f64) -> Vec<(bool, f64)> {
        (0..200).map(|i| (i % 2 == 1, f64::from(i / 2 % 10) + if i % 2 == 1 { shift } else { 0.0 })).collect()
    }

    #[test]
    fn equal_classes_have_no_t() {
        assert_eq!(t(samples(0.0).into_iter()), Some(0.0));
        assert!(largest_t(&samples(0.0)).abs() < 1e-9);
    }

    #[test]
    fn t_is_the_difference_over_its_error() {
        // Variance of 0 … 9 ten times over: 100 · 8.25 / 99.
        let error = (2.0 * 8.25 / 99.0_f64).sqrt();
        let found = t(samples(1.0).into_iter()).unwrap();
        assert!((found + 1.0 / error).abs() < 1e-9, "{found}");
    }

    #[test]
    fn a_rare_outlier_hides_nothing() {
        let mut samples = samples(3.0);
        samples[0].1 = 1e9;
        assert!(t(samples.iter().copied()).unwrap().abs() < 2.0);
        assert!(largest_t(&samples).abs() > 6.0);
    }

    #[test]
    fn few_samples_say_nothing() {
        assert_eq!(largest_t(&[]), 0.0);
        assert_eq!(largest_t(&samples(9.0)[..80]), 0.0);
    }
}
