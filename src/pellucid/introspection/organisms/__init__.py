"""Two models made from the specimen to test the suite itself."""
