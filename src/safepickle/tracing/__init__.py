"""Following a live graph and naming the way: what a failed dump, a partial save and explain share."""
