//! Percentiles for rules: looked at once in a while, since a look goes over the whole window.

use super::window::Window;

/// A look at so large a share of the window is new each time: a record pays for eight entries, whatever the window's size.
const SHARE: u64 = 8;

/// The high percentiles as of the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    /// Records until the next look.
    left: u64,
    seconds: [Option<f64>; 2],
}

impl Tail {
    /// After each record. Whether it has looked.
    #[inline]
    pub fn look(&mut self, window: &Window) -> bool {
        match self.left {
            0 => {
                self.renew(window);
                true
            }
            _ => {
                self.left -= 1;
                false
            }
        }
    }

    /// Looks now.
    pub fn renew(&mut self, window: &Window) {
        let latencies = window.latencies();
        self.seconds = [950, 990].map(|per_mille| latencies.quantile(per_mille).map(|ns| ns as f64 / 1e9));
        self.left = (window.tally().total / SHARE).saturating_sub(1);
    }

    /// The 95th and the 99th percentile.
    #[inline]
    pub fn seconds(&self) -> [Option<f64>; 2] {
        self.seconds
    }
}
