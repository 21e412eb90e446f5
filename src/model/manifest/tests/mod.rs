mod document;
mod read_and_write;
