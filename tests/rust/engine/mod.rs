mod pairs;
mod policies;
