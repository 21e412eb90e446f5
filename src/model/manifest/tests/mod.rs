mod read_and_write;
