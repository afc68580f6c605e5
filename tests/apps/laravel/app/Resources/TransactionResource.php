<?php

namespace App\Resources;

use App\Models\Transaction;

class TransactionResource extends Resource
{
    public static string $model = Transaction::class;
}
