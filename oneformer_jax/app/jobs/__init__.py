"""Jobs: actions whose inputs come from data-set roots and from the jobs before them."""
