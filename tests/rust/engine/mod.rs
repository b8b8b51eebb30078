mod lane;
mod pairs;
mod policies;
