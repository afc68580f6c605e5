<?php

namespace App\Resources;

use App\Models\Customer;

class CustomerResource extends Resource
{
    public static string $model = Customer::class;
}
