"""Archives: folders and object stores of images and videos through Ray Data, on one machine or many."""
