mod breaker_model;
mod chaos;
mod lane;
mod pairs;
mod pipeline_model;
mod policies;
mod trial;
