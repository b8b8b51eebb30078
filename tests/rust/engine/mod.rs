mod breaker_model;
mod pairs;
mod policies;
