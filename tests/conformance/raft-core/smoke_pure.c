int smoke_b;
