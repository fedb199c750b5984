"""What a network looks at, how faithful that is, and how alike two networks are."""
