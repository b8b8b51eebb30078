mod chaos;
mod lane;
mod pairs;
mod policies;
mod trial;
