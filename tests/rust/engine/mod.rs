mod breaker_model;
mod chaos;
mod inherited;
mod lane;
mod pairs;
mod pipeline_model;
mod policies;
mod trial;
