mod breaker_lenient;
mod breaker_model;
mod lane;
mod pairs;
mod pipeline_model;
mod policies;
