-- Of an activation: the inactivation that it ends, which is gone when it has been made; its own id
-- stands for one that was made by hand.
ALTER TABLE schedule ADD COLUMN
    ends TEXT CHECK (length(ends) = 16 AND ends NOT GLOB '*[^0-9a-f]*');
